function render({ model, el }) {
  const root = element("div", { class: "wb-part wb-section-title", "data-lm-suppress-shortcuts": "true", onkeydown: (event) => event.stopPropagation() });
  const mark = element("span", { class: "wb-mark", "aria-hidden": "true" }, "\u203a");
  const title = element("span", {});
  const toggle = element("button", { type: "button", class: "wb-section-button", onclick: () => model.send({ type: "toggle" }) }, mark, title);
  root.append(toggle);
  el.append(root);
  return follow(model, ["title", "is_open"], () => {
    title.textContent = model.get("title");
    toggle.setAttribute("aria-expanded", model.get("is_open"));
  });
}

export default { initialize, render };
