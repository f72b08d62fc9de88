// Keeps a job's page fresh: asks every two seconds whether its state has changed, and puts the new part in place.

import { ask, lost } from "./connection.js";

const POLL_MS = 2000;
const STRIP_MS = 10_000;
const FULL_STRIP = 8;
const live = document.getElementById("live");
const announce = document.getElementById("announce");
const look = document.getElementById("first-look");
const strip = document.getElementById("strip");
let tag = "";
let said = "";
let lookedAt = 0;

const job = () => document.getElementById("job").dataset;

function say() {
  const { status, done, total, expanding } = job();
  let text = status;
  if (status === "running" && expanding === "no" && Number(total) > 0) {
    text += `, ${Math.floor((10 * Number(done)) / Number(total)) * 10} percent`;
  }
  if (text !== said) {
    said = text;
    announce.textContent = `The job is ${text}.`;
    document.title = document.title.replace(/: [^:]* - Mien$/, `: ${status} - Mien`);
  }
}

// Puts the new part in place without taking the focus or an opened detail away.
function replace(html) {
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  const details = [...live.querySelectorAll("details[id]")].map(({ id, open }) => [id, open]);
  live.innerHTML = html;
  for (const [id, open] of details) document.getElementById(id)?.toggleAttribute("open", open);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

// The first photographs, as soon as there are some; they are left alone once there are enough.
async function showStrip() {
  if (!strip || Number(job().faces) === 0 || strip.children.length >= FULL_STRIP) return;
  if (Date.now() - lookedAt < STRIP_MS && job().final !== "yes") return;
  lookedAt = Date.now();
  const answer = await ask(look.dataset.url);
  if (!answer.ok) return;
  strip.innerHTML = await answer.text();
  look.hidden = strip.children.length === 0;
}

async function poll() {
  if (job().final === "yes") return;
  if (!document.hidden) {
    try {
      const answer = await ask(live.dataset.url, {
        headers: tag ? { "If-None-Match": tag } : {},
        redirect: "manual",
      });
      if (answer.status === 200) {
        replace(await answer.text());
        tag = answer.headers.get("ETag") ?? "";
        say();
        await showStrip();
      } else if (answer.status === 404) {
        window.location.assign(live.dataset.start);
        return;
      } else if (answer.type === "opaqueredirect" || answer.status === 401) {
        window.location.reload();
        return;
      } else if (answer.status >= 500) {
        lost("Mien is not ready just now. This page goes on by itself.");
      }
    } catch {
      // the banner says it
    }
  }
  setTimeout(poll, POLL_MS);
}

said = job().status;
setTimeout(poll, POLL_MS);
