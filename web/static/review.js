// The desk at which faces are rated: a key or a press keeps the answer and brings the next face, without a new page.

import { ask } from "./connection.js";

const desk = document.getElementById("desk");
const announce = document.getElementById("announce");
const trouble = document.getElementById("desk-trouble");
const keysOn = document.getElementById("keys-on");
let busy = false;

function remember(on) {
  document.documentElement.classList.toggle("keys-off", !on);
  try {
    localStorage.setItem("mien-review-keys", on ? "on" : "off");
  } catch {
    // nothing is remembered then
  }
}

function complain(text) {
  trouble.textContent = text;
  trouble.hidden = text === "";
}

// The pictures of the next faces are made, and kept by the server, while this one is looked at.
function lookAhead() {
  const rating = document.getElementById("rating");
  for (const address of (rating?.dataset.ahead ?? "").trim().split(/\s+/)) {
    if (address) new Image().src = address;
  }
  const picture = document.getElementById("face-picture");
  picture?.addEventListener("error", () => {
    picture.hidden = true;
    picture.nextElementSibling.hidden = false;
  });
}

function say() {
  const last = document.getElementById("last")?.dataset;
  const rating = document.getElementById("rating")?.dataset;
  const kept = last ? `Kept: ${last.said}. The model says ${last.model}. ` : "";
  const next = rating ? `Next face${rating.left ? `, ${rating.place} of ${rating.left}` : ""}.` : "No face waits any more.";
  announce.textContent = kept + next;
}

async function send(form, button) {
  if (busy) return;
  busy = true;
  desk.setAttribute("aria-busy", "true");
  const opened = document.getElementById("where")?.open;
  try {
    const answer = await ask(`${form.action}?part=desk`, {
      method: "POST",
      headers: { Accept: "text/html" },
      body: new URLSearchParams(new FormData(form, button)),
      redirect: "manual",
    });
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      window.location.reload(); // signed out meanwhile
      return;
    }
    if (answer.ok) {
      desk.innerHTML = await answer.text();
      complain("");
      if (opened) document.getElementById("where")?.setAttribute("open", "");
      if (window.location.search.includes("again=")) {
        const address = new URL(window.location);
        address.searchParams.delete("again");
        history.replaceState(null, "", address);
      }
      desk.focus({ preventScroll: true });
      lookAhead();
      say();
    } else if (answer.status === 404) {
      window.location.reload(); // the job is gone: the page says it
    } else if (answer.status === 403) {
      complain("This key may only read, so the answer was not kept.");
    } else {
      complain("The answer was not kept; give it again in a moment.");
    }
  } catch {
    complain("The answer was not kept, because Mien does not answer. Give it again when it does.");
  } finally {
    busy = false;
    desk.removeAttribute("aria-busy");
  }
}

desk.addEventListener("submit", (event) => {
  event.preventDefault();
  send(event.target, event.submitter);
});

document.addEventListener("keydown", (event) => {
  if (!keysOn.checked || event.altKey || event.ctrlKey || event.metaKey || event.repeat) return;
  if (event.target.closest("input, select, textarea, dialog, nav, footer")) return;
  let button = null;
  if (event.key === "Backspace") button = document.querySelector("#undo button, #back");
  else if (event.key === "Enter") {
    if (event.target.closest("button, a, summary")) return; // it does what is focused
    const confirmed = document.getElementById("rating")?.dataset.confirm;
    button = confirmed && [...desk.querySelectorAll("[data-key]")].find((one) => one.value === confirmed);
  } else button = desk.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!button) return;
  event.preventDefault();
  button.click();
});

keysOn.addEventListener("change", () => remember(keysOn.checked));
try {
  keysOn.checked = localStorage.getItem("mien-review-keys") !== "off";
} catch {
  // they are on
}
remember(keysOn.checked);
lookAhead();
if (!window.location.hash) desk.focus({ preventScroll: true });
