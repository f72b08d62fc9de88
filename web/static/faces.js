// A photograph with its faces: as large as fits, and each answer shows which box it belongs to.

export function fitPicture(root) {
  const picture = root.querySelector("[data-ratio]");
  if (picture) picture.style.setProperty("--ratio", picture.dataset.ratio);
}

export function wireFaces(root) {
  const groups = [...root.querySelectorAll(".boxes g[data-face]")];
  if (groups.length < 2) return;
  const light = (number) => {
    for (const group of groups) group.classList.toggle("dim", number !== null && group.dataset.face !== number);
  };
  for (const answer of root.querySelectorAll(".face-answer")) {
    answer.addEventListener("pointerenter", () => light(answer.dataset.face));
    answer.addEventListener("pointerleave", () => light(null));
  }
}
