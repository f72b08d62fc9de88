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

watch();
