function render({ model, el }) {
  const root = part(el, "wb-carry", "Carry on elsewhere");
  const forms = element("div");
  const text = element("textarea", { rows: "3", spellcheck: "false" });
  const textField = field("Open a choice", "Paste a cell, a command line or JSON of a choice", text, "wb-wide");
  const file = element("input", { type: "file", accept: ".json,.py,.txt", class: "wb-unseen", tabindex: "-1", "aria-label": "File with a choice",
    onchange: async () => { if (file.files[0]) { text.value = await file.files[0].text(); open(); } file.value = ""; } });
  const open = () => model.send({ type: "open", text: text.value });
  const said = element("p", { class: "wb-hint", role: "status" });
  const problem = element("p", { class: "wb-problem", role: "alert" });
  const save = button("Save JSON file", "Save the choice as a file", () => {
    const link = element("a", { href: URL.createObjectURL(new Blob([model.get("json_text")], { type: "application/json" })), download: "choice.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }, "wb-small");
  root.append(forms, element("div", { class: "wb-row" }, save), textField.node,
    element("div", { class: "wb-row" }, button("Take this choice", "Set the panel to what is pasted above", open, "wb-small"), button("Open file\u2026", "Open a saved choice", () => file.click(), "wb-small"), file), said, problem);

  function update() {
    const wasOpen = [...forms.querySelectorAll("details")].map((node) => node.open);
    forms.replaceChildren(
      codeBlock("Code cell", model.get("code"), wasOpen[0] ?? true),
      codeBlock("Command line", model.get("command"), wasOpen[1] ?? false),
      codeBlock("JSON", model.get("json_text"), wasOpen[2] ?? false),
    );
    said.textContent = model.get("said");
    problem.textContent = model.get("problem");
  }
  return follow(model, ["code", "command", "json_text", "said", "problem"], update);
}

export default { initialize, render };
