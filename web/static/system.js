// Keeps the page of the system fresh: a new part every few seconds, put in place without taking the focus away.

import { ask, onReturn } from "./connection.js";

const POLL_MS = 5000;
const system = document.getElementById("system");
let timer = 0;

async function refresh() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      const answer = await ask(system.dataset.url, { headers: { Accept: "text/html" }, redirect: "manual" });
      if (answer.type === "opaqueredirect" || answer.status === 401) {
        window.location.reload();
        return;
      }
      if (answer.ok) {
        const html = await answer.text();
        // a table that somebody scrolls, or a link that has the focus, stays as it is until it is left
        if (!system.contains(document.activeElement)) system.innerHTML = html;
      }
    } catch {
      // the banner says it
    }
  }
  timer = setTimeout(refresh, POLL_MS);
}

onReturn(refresh);
timer = setTimeout(refresh, POLL_MS);
