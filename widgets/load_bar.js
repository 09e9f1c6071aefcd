function render({ model, el }) {
  const root = part(el, "wb-load", "Loading");
  const press = (action) => () => model.send({ type: action });
  const buttons = {
    load: button("Load", "Load the chosen model", press("load"), "wb-primary"),
    cancel: button("Cancel", "Stop the load that runs", press("cancel")),
    unload: button("Unload", "Unload the model and give its memory back", press("unload")),
  };
  const bar = element("progress", { max: "1", "aria-label": "Load progress" });
  // Stages are announced, percentages are not: they change too often to be read out.
  const headline = element("span", { class: "wb-headline", role: "status", "aria-live": "polite" });
  const detail = element("span", { class: "wb-hint" });
  const failure = element("div");
  const receipt = element("ul", { class: "wb-receipt", "aria-label": "What unloading gave back" });
  root.append(
    element("div", { class: "wb-row" }, ...Object.values(buttons), element("div", { class: "wb-status" }, headline, detail)),
    bar,
    receipt,
    failure,
  );

  function update() {
    for (const [action, node] of Object.entries(buttons)) setUsable(node, model.get("actions").includes(action));
    root.dataset.state = model.get("state");
    root.setAttribute("aria-busy", ["loading", "unloading"].includes(model.get("state")));
    headline.textContent = model.get("headline");
    detail.textContent = model.get("detail");
    bar.hidden = model.get("state") !== "loading";
    if (model.get("fraction") === null) bar.removeAttribute("value");
    else bar.value = model.get("fraction");
  }
  function updateFailure() {
    failure.replaceChildren(...failureNotes(model.get("failure")));
  }
  const endings = [
    follow(model, ["state", "headline", "detail", "fraction", "actions"], update),
    follow(model, ["failure"], updateFailure),
    follow(model, ["receipt"], () => {
      receipt.replaceChildren(...model.get("receipt").map((text) => element("li", {}, text)));
      receipt.hidden = model.get("receipt").length === 0;
    }),
  ];
  return () => endings.forEach((end) => end());
}

export default { initialize, render };
