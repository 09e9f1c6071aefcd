function render({ model, el }) {
  const root = part(el, "wb-next", "Next tokens");
  const text = element("textarea", { rows: "2" });
  const textField = field("Text", "What the model continues; used as it is, without a chat template", text, "wb-wide");
  const look = button("Show next tokens", "Ask the model for its likeliest next tokens", () => model.send({ type: "look", text: text.value }), "wb-small");
  const list = element("div", { class: "wb-alternatives", role: "group", "aria-label": "Likeliest next tokens" });
  const rest = element("p", { class: "wb-hint", role: "status" });
  const failure = element("div");
  root.append(textField.node, element("div", { class: "wb-row" }, look), list, rest, failure);

  function update() {
    if (document.activeElement !== text) text.value = model.get("text");
    setUsable(look, !model.get("busy"));
    const hasFocus = list.contains(document.activeElement);
    list.replaceChildren(...model.get("choices").map(([token, p], index) => {
      const node = button("", `Append \u201c${shownToken(token)}\u201d`, () => model.send({ type: "take", index }), "wb-alternative");
      node.append(element("span", { class: "wb-alt-bar", style: `width:${100 * p}%` }), element("code", {}, shownToken(token)), element("span", {}, `${(100 * p).toFixed(1)} %`));
      setUsable(node, !model.get("busy"));
      return node;
    }));
    // The likeliest one is where the keyboard goes on.
    if (hasFocus) (list.querySelector("button") ?? look).focus();
    rest.textContent = model.get("busy") ? "Asking the model\u2026" : model.get("choices").length ? `All other tokens together: ${(100 * model.get("rest")).toFixed(1)} %` : "";
    failure.replaceChildren(...failureNotes(model.get("failure")));
  }
  return follow(model, ["text", "choices", "rest", "busy", "failure"], update);
}

export default { initialize, render };
