// What is wider than its column scrolls in itself: the Tab key stops there, so that arrows can move it, and it says by
// `data-goes-on` whether there is more on the right. (Code and tables get their stop from the theme.)
(function () {
  const WIDE = ".ibmd-figure, .cell_output, div.math, mjx-container";
  const known = new Set();

  const tell = (box) => {
    const more = box.scrollWidth - box.clientWidth;
    const scrolls = more > 1 && getComputedStyle(box).overflowX !== "visible";
    if (scrolls) {
      box.dataset.goesOn = String(box.scrollLeft < more - 1);
      box.tabIndex = 0;
      if (!box.matches("figure, [role]")) {
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", box.matches(".cell_output") ? "Output, scrolls" : "Formula, scrolls");
      }
    } else if (box.dataset.goesOn) {
      delete box.dataset.goesOn;
      box.removeAttribute("tabindex");
      if (box.getAttribute("role") === "group") {
        box.removeAttribute("role");
        box.removeAttribute("aria-label");
      }
    }
  };

  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => tell(entry.target)));

  const look = () => {
    for (const box of document.querySelectorAll(`article :is(${WIDE})`)) {
      if (!known.has(box)) {
        known.add(box);
        sizes.observe(box);
        box.addEventListener("scroll", () => tell(box), { passive: true });
      }
      tell(box);
    }
  };

  // Formulas are typeset, pictures loaded and solutions unfolded later; and a box can keep its size while its glyphs get
  // narrower (their font arrives) or its style another (a rule for phones ends): its observer is silent then.
  window.addEventListener("DOMContentLoaded", () => {
    const article = document.querySelector("article");
    if (article) {
      look();
      new MutationObserver(look).observe(article, { childList: true, subtree: true });
    }
  });
  window.addEventListener("load", look);
  window.addEventListener("resize", look);
  document.fonts.addEventListener("loadingdone", look);
})();
