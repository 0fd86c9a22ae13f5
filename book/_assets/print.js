// On paper a page is light, whatever it is on the screen.
(function () {
  let shown = null;
  window.addEventListener("beforeprint", () => {
    shown = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = shown;
  });
})();
