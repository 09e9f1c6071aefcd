// Says whether the plot beside it can be seen, gives it a name for screen readers, and repeats its data as a table.
const TABLE_ROWS = 12;

function dataTable(traces) {
  const ages = [...(traces[0]?.x ?? [])].slice(-TABLE_ROWS).reverse();
  const cell = (trace, age) => String(trace.y[Array.prototype.indexOf.call(trace.x, age)] ?? "\u2013");
  const head = element("tr", {}, ...["Seconds", ...traces.map((trace) => trace.name)].map((name) => element("th", { scope: "col" }, name)));
  const rows = ages.map((age) => element("tr", {}, ...[String(age), ...traces.map((trace) => cell(trace, age))].map((text) => element("td", {}, text))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

function render({ model, el }) {
  const root = part(el, "wb-plot-note", "Live plot in words");
  const view = Math.random().toString(36).slice(2);
  const summary = element("p", { class: "wb-hint" });
  const table = element("div", { class: "wb-table" });
  const details = element("details", { ontoggle: update }, element("summary", {}, "Data table"), table);
  root.append(summary, details);

  function update() {
    summary.textContent = model.get("summary");
    const plot = root.closest(".wb-live")?.querySelector(".js-plotly-plot");
    if (!plot) return;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", model.get("summary"));
    if (details.open) table.replaceChildren(dataTable(plot.data ?? []));
  }

  let isInSight = false;
  let reported = null;
  function report() {
    const visible = isInSight && document.visibilityState === "visible";
    if (visible === reported) return;
    reported = visible;
    model.send({ type: "visible", view, visible });
  }
  const sight = new IntersectionObserver((entries) => {
    isInSight = entries[entries.length - 1].isIntersecting;
    report();
  });
  sight.observe(root);
  // plotly follows the window's size only; the panel's own width may change without it.
  const width = new ResizeObserver(() => window.dispatchEvent(new Event("resize")));
  width.observe(root);
  document.addEventListener("visibilitychange", report);
  const end = follow(model, ["summary"], update);
  return () => {
    end();
    sight.disconnect();
    width.disconnect();
    document.removeEventListener("visibilitychange", report);
    isInSight = false;
    report();
  };
}

export default { render };
