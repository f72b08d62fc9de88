// On every page: the choice of theme, and the banner when the server is lost.

import { watch } from "./connection.js";

const ORDER = ["system", "light", "dark"];
const button = document.getElementById("theme");
const root = document.documentElement;

function show(choice) {
  if (choice === "system") delete root.dataset.theme;
  else root.dataset.theme = choice;
  const next = ORDER[(ORDER.indexOf(choice) + 1) % ORDER.length];
  button.setAttribute("aria-label", `Theme: ${choice}. Change to ${next}`);
  button.title = `Theme: ${choice}`;
  button.querySelectorAll("[data-for]").forEach((icon) => icon.toggleAttribute("hidden", icon.dataset.for !== choice));
}

if (button) {
  let choice = root.dataset.theme ?? "system";
  show(choice);
  button.addEventListener("click", () => {
    choice = ORDER[(ORDER.indexOf(choice) + 1) % ORDER.length];
    show(choice);
    try {
      if (choice === "system") localStorage.removeItem("mien-theme");
      else localStorage.setItem("mien-theme", choice);
    } catch {
      // nothing is remembered then
    }
  });
}

// A picture that the server has no hands free for is asked for again; one that does not come leaves its place empty.
const RETRIES_MS = [700, 2000, 6000, 15_000];
function tryAgain(image) {
  const tried = Number(image.dataset.tried ?? 0);
  if (tried < RETRIES_MS.length) {
    image.dataset.tried = String(tried + 1);
    setTimeout(() => { if (image.isConnected) image.src = image.src; }, RETRIES_MS[tried]);
  } else image.classList.add("lost");
}
document.addEventListener("error", ({ target }) => { if (target instanceof HTMLImageElement) tryAgain(target); }, true);
for (const image of document.images) if (image.complete && image.src && image.naturalWidth === 0) tryAgain(image);

watch();
