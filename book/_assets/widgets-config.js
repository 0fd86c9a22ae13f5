// Loaded after RequireJS and before the widget manager, on pages with widgets only.
(function () {
  // The manager's modules and fonts come from the folder beside this file, not from a content
  // delivery network.
  var widgets = document.currentScript.src.replace(/widgets-config\.js.*$/, "vendor/widgets");
  requirejs.config({
    paths: {
      "@jupyter-widgets": widgets,
      "@jupyter-widgets/html-manager/dist": widgets,
    },
  });

  // The manager typesets labels the way MathJax 2 did; the pages carry MathJax 3.
  window.addEventListener("load", function () {
    if (window.MathJax && !window.MathJax.Hub) {
      window.MathJax.Hub = {
        Queue: function (call) {
          window.MathJax.startup.promise.then(function () {
            return window.MathJax.typesetPromise([call[2]]);
          });
        },
      };
    }
  });
})();
