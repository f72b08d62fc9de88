// The page of one image: the arrow keys lead to its neighbours.

import { fitPicture, wireFaces } from "./faces.js";

fitPicture(document);
wireFaces(document);

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, textarea, dialog")) return;
  const id = { ArrowLeft: "go-before", ArrowRight: "go-after" }[event.key];
  const link = id && document.getElementById(id);
  if (link) link.click();
});
