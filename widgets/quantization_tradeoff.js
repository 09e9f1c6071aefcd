function render({ model, el }) {
  const root = part(el, "wb-tradeoff", "Quantisation trade-off");
  const names = element("input", { type: "text", spellcheck: "false" });
  const prompts = element("textarea", { rows: "4" });
  const namesField = field("Precisions", "Such as fp32, int8, int4", names);
  const promptsField = field("Prompts", "Texts of your own, with a line of --- between them", prompts, "wb-wide");
  const run = button("Measure", "Load each in turn, measure and unload it", () => model.send({ type: "run", precisions: names.value, prompts: prompts.value }), "wb-primary");
  const stop = button("Stop", "Leave out those that were not begun", () => model.send({ type: "stop" }));
  const said = element("span", { class: "wb-hint", role: "status" });
  const picture = element("div");
  const table = element("div", { class: "wb-table", tabindex: "0", role: "group", "aria-label": "Measured figures" });
  const failure = element("div");
  root.append(element("div", { class: "wb-row wb-end" }, namesField.node, run, stop, said), element("details", { class: "wb-fold" }, element("summary", {}, "Prompts"), promptsField.node), picture, table, failure);

  function update() {
    if (document.activeElement !== names) names.value = model.get("precisions").join(", ");
    if (document.activeElement !== prompts) prompts.value = model.get("prompts");
    setUsable(run, !model.get("busy"));
    setUsable(stop, model.get("busy"));
    said.textContent = model.get("said");
    // Made by the kernel from numbers and escaped names.
    picture.innerHTML = model.get("picture");
    table.replaceChildren(element("table", { class: "wb-figures" }, element("tbody", {}, ...model.get("rows").map(([name, words]) =>
      element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, words))))));
    failure.replaceChildren(...failureNotes(model.get("failure")));
  }
  return follow(model, ["precisions", "prompts", "picture", "rows", "said", "busy", "failure"], update);
}

export default { initialize, render };
