const COLUMNS = [
  ["number", "Run"], ["kind", "What"], ["at", "When (UTC)"], ["model", "Model"], ["outcome", "Outcome"], ["backend", "Backend"],
  ["precision", "Weights"], ["seconds", "Seconds"], ["predicted_bytes", "Weights + KV pool, predicted"], ["measured_bytes", "measured"],
  ["tokens_per_s", "Tokens/s"], ["ttft_s", "First token, s"], ["generated_tokens", "Tokens"], ["settings", "Settings"],
];

function render({ model, el }) {
  const root = part(el, "wb-history", "Run history");
  const table = element("div", { class: "wb-table", tabindex: "0", role: "group", "aria-label": "Runs" });
  const differences = element("div", { role: "status" });
  const url = element("input", { type: "text", spellcheck: "false" });
  const urlField = field("S3 address", "s3://bucket/key.csv, or a prefix ending in /", url);
  const said = element("p", { class: "wb-hint", role: "status" });
  const failure = element("div");
  const csv = button("Download CSV", "Save all runs as CSV", () => model.send({ type: "csv" }), "wb-small");
  const s3 = button("Write to S3", "Write the CSV to this address", () => model.send({ type: "s3", url: url.value }), "wb-small");
  root.append(table, differences, element("div", { class: "wb-row wb-end" }, csv, urlField.node, s3), said, failure);

  function headed(names, rows) {
    return element("table", { class: "wb-figures" }, element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, ...rows));
  }

  // Times as people read them; the column says that they are UTC.
  const shown = (name, value) => (name === "at" ? value.replace("T", " ").replace(/(\+00:00|Z)$/, "") : String(value));

  function update() {
    const chosen = model.get("chosen");
    const rows = [...model.get("rows")].reverse();
    const used = COLUMNS.filter(([name]) => rows.some((row) => row[name] !== ""));
    table.replaceChildren(rows.length === 0 ? element("p", { class: "wb-hint" }, `No runs yet: ${model.get("hint")}.`) : headed(["Compare", ...used.map(([, label]) => label)], rows.map((row) => {
      const box = element("input", { type: "checkbox", "aria-label": `Compare run ${row.number}`, onchange: () => model.send({ type: "choose", number: row.number }) });
      box.checked = chosen.includes(row.number);
      return element("tr", {}, element("td", {}, box), ...used.map(([name]) => element("td", {}, shown(name, row[name]))));
    })));
    const pairs = model.get("differences");
    differences.replaceChildren(...(chosen.length === 2 ? [
      element("p", { class: "wb-label" }, pairs.length ? "Where they differ" : "They differ in nothing but the time."),
      ...(pairs.length ? [headed(["", `Run ${chosen[0]}`, `Run ${chosen[1]}`], pairs.map((row) => element("tr", {}, ...row.map((text) => element("td", {}, text)))))] : []),
    ] : rows.length > 1 ? [element("p", { class: "wb-hint" }, "Tick two runs to compare them.")] : []));
    said.textContent = model.get("said");
    failure.replaceChildren(...failureNotes(model.get("failure")));
  }
  function receive(content) {
    if (content.type !== "csv") return;
    const link = element("a", { href: URL.createObjectURL(new Blob([content.text], { type: "text/csv" })), download: "runs.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  model.on("msg:custom", receive);
  const end = follow(model, ["rows", "hint", "chosen", "differences", "said", "failure"], update);
  return () => { model.off("msg:custom", receive); end(); };
}

export default { initialize, render };
