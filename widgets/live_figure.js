// plotly's figure, whose 5 MB of JavaScript are loaded only when it is shown: the rest of the page is there first.
async function plotlyFigure(model) {
  const url = URL.createObjectURL(new Blob([model.get("plotly")], { type: "text/javascript" }));
  try {
    const { default: makeFigure } = await import(url);
    const figure = makeFigure();
    figure.initialize({ model });
    return figure;
  } finally {
    URL.revokeObjectURL(url);
  }
}

// plotly loses updates that come before its first drawing. So the kernel is told before and after: it sends the figure
// as it stands now, says when that is here, and holds what follows until the drawing is done.
function currentFigure(model) {
  return new Promise((resolve) => {
    const receive = (content) => {
      if (content.type !== "current") return;
      model.off("msg:custom", receive);
      resolve();
    };
    model.on("msg:custom", receive);
    model.send({ type: "drawing" });
  });
}

const REMOVE_AFTER_MS = 1000;

export default () => {
  let figure = null;
  return {
    initialize,
    async render({ model, el }) {
      const note = element("p", { class: "wb-hint" }, "Loading the plot\u2026");
      el.append(note);
      const tell = ({ detail }) => {
        if (detail.element === el) model.send({ type: "drawn" });
      };
      document.addEventListener("plotlywidget-after-render", tell);
      figure ??= plotlyFigure(model);
      const [shown] = await Promise.all([figure, currentFigure(model)]);
      note.remove();
      const remove = shown.render({ model, el });
      return () => {
        document.removeEventListener("plotlywidget-after-render", tell);
        // plotly fails on what is taken from it while it draws.
        setTimeout(remove, REMOVE_AFTER_MS);
      };
    },
  };
};
