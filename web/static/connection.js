// Whether the server answers. Pages say what their own requests met (reached, lost); besides, it is asked now and then.

const LOOK_MS = 15_000;
const LOST_LOOK_MS = 3000;
const GOOD_NEWS_MS = 3000;
const listeners = new Set();
let isLost = false;
let timer = 0;
let hiding = 0;

const banner = () => document.getElementById("connection");

export function lost(text = "Mien does not answer. This page goes on by itself as soon as it does.") {
  isLost = true;
  const place = banner();
  if (place) {
    clearTimeout(hiding);
    place.classList.remove("back-again");
    place.hidden = false;
    if (place.textContent !== text) place.textContent = text;
  }
  schedule(LOST_LOOK_MS);
}

export function reached() {
  if (!isLost) return;
  isLost = false;
  const place = banner();
  if (place) {
    place.classList.add("back-again");
    place.textContent = "Mien answers again.";
    hiding = setTimeout(() => { place.hidden = true; }, GOOD_NEWS_MS);
  }
  listeners.forEach((listener) => listener());
  schedule(LOOK_MS);
}

// Calls back each time the server is there again after it was lost.
export function onReturn(listener) {
  listeners.add(listener);
}

// fetch that tells the banner how it went. An answer of 502 to 504 is a server that is not there.
export async function ask(url, options = {}) {
  let answer;
  try {
    answer = await fetch(url, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name !== "AbortError") lost();
    throw error;
  }
  if (answer.status >= 502 && answer.status <= 504) lost();
  else reached();
  return answer;
}

export function watch() {
  window.addEventListener("offline", () => look());
  window.addEventListener("online", () => look());
  document.addEventListener("visibilitychange", () => { if (!document.hidden && isLost) look(); });
  schedule(LOOK_MS);
}

function schedule(wait) {
  clearTimeout(timer);
  timer = setTimeout(look, wait);
}

async function look() {
  if (document.hidden) {
    schedule(LOOK_MS);
    return;
  }
  try {
    await ask("/healthz", { method: "HEAD" });
    schedule(LOOK_MS);
  } catch {
    // the banner says it
  }
}
