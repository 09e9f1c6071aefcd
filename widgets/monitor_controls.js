// Pause, window and threshold of the plot beside it; says whether the plot can be seen, and repeats its data in words.
const TABLE_ROWS = 12;

function dataTable(traces) {
  const times = [...(traces[0]?.x ?? [])];
  const lines = traces.map((trace) => ({ name: trace.name, y: [...(trace.y ?? [])] }));
  const used = times.map((_, index) => index).filter((index) => lines.some((line) => line.y[index] != null));
  const cells = (texts, tag) => texts.map((text, index) => element(index === 0 || tag === "th" ? "th" : "td", { scope: tag === "th" ? "col" : "row" }, text));
  const head = element("tr", {}, ...cells(["Seconds", ...lines.map((line) => line.name)], "th"));
  const rows = used.slice(-TABLE_ROWS).reverse().map((index) =>
    element("tr", {}, ...cells([String(times[index]), ...lines.map((line) => String(line.y[index] ?? "\u2013"))], "td")),
  );
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

function windowLabel(seconds) {
  return seconds < 60 ? `${seconds} s` : `${seconds / 60} min`;
}

function render({ model, el }) {
  const root = part(el, "wb-monitor", "Live plot controls");
  const pause = button("Pause", "Stop redrawing; measuring goes on", () => model.send({ type: "pause", paused: !model.get("is_paused") }), "wb-small");
  const windows = element("select", { onchange: () => model.send({ type: "window", window_s: Number(windows.value) }) });
  const threshold = element("input", {
    type: "number", min: "1", max: "100", step: "1",
    onchange: () => {
      thresholdField.hint.textContent = "";
      model.send({ type: "threshold", percent: typedNumber(threshold) });
    },
  });
  const windowField = field("Window", "How far back the plot goes", windows, "wb-inline");
  const thresholdField = field("Line at % of memory", "Draws a line, and warns above it; empty for none", threshold, "wb-inline");
  const alarm = element("p", { class: "wb-warning", role: "status" });
  const summary = element("p", { class: "wb-hint" });
  const table = element("div", { class: "wb-table", tabindex: "0", role: "group", "aria-label": "Data of the plot" });
  const details = element("details", { ontoggle: update }, element("summary", {}, "In words and as a table"), summary, table);
  root.append(element("div", { class: "wb-row" }, pause, windowField.node, thresholdField.node), alarm, details);

  // Apart from what changes with every redraw: an open menu and a half-typed number are left alone by those.
  function updateControls() {
    pause.textContent = model.get("is_paused") ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", model.get("is_paused"));
    windows.replaceChildren(...model.get("windows_s").map((seconds) => element("option", { value: seconds }, windowLabel(seconds))));
    windows.value = String(model.get("window_s"));
    thresholdField.node.hidden = !model.get("has_threshold");
    showValue(threshold, model.get("threshold_percent") ?? "");
  }

  function update() {
    alarm.textContent = model.get("alarm") ? `Above the line: ${model.get("alarm")}` : "";
    summary.textContent = model.get("summary");
    const plot = root.closest(".wb-live")?.querySelector(".js-plotly-plot");
    if (!plot) return;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", model.get("summary"));
    if (details.open) table.replaceChildren(dataTable(plot.data ?? []));
  }

  const sight = reportSight(model);
  // Called once the controls lie in the page, which is when the plot that they belong to can be found.
  const size = new ResizeObserver(() => {
    sight.watch(root.closest(".wb-live") ?? root);
    // plotly follows the window's size only; the panel's own width may change without it.
    window.dispatchEvent(new Event("resize"));
  });
  size.observe(root);
  // What was entered and can't be is taken back, and the reason stands beside it.
  function receive(content) {
    if (content.type !== "refused") return;
    updateControls();
    thresholdField.hint.textContent = content.cause;
  }

  model.on("msg:custom", receive);
  const endings = [
    follow(model, ["is_paused", "window_s", "windows_s", "threshold_percent", "has_threshold"], updateControls),
    follow(model, ["summary", "alarm"], update),
  ];
  return () => {
    model.off("msg:custom", receive);
    endings.forEach((end) => end());
    size.disconnect();
    sight.stop();
  };
}

export default { initialize, render };
