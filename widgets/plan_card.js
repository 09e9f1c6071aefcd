const COLORS = ["--wb-c1", "--wb-c2", "--wb-c3", "--wb-c4", "--wb-c5", "--wb-c6"];
const MARKS = { fits: "\u2713", tight: "!", "does not fit": "\u2715" };

function render({ model, el }) {
  const root = part(el, "wb-plan", "Plan");
  const head = element("div", { class: "wb-plan-head", role: "status", "aria-live": "polite" });
  const batch = element("input", {
    type: "number", min: "1", max: "1024", step: "1",
    onchange: () => {
      batchField.hint.textContent = "";
      model.send({ type: "batch", batch: typedNumber(batch) });
    },
  });
  const batchField = field("Requests at once", "How many requests of full length the plan is for", batch, "wb-inline");
  const devices = element("div");
  const speeds = element("ul", { class: "wb-speeds" });
  const advice = element("div");
  const measured = element("div");
  const notes = element("div");
  const failure = element("div");
  const body = element("div", {}, devices, speeds, advice, measured, element("div", { class: "wb-row" }, batchField.node), notes);
  root.append(head, body, failure);

  function legend(part_, index) {
    return element("span", { class: "wb-legend" }, element("i", { style: `background:var(${COLORS[index % 6]})`, "aria-hidden": "true" }), `${part_.name} ${bytesText(part_.bytes)}`);
  }

  function deviceView(device) {
    const scale = Math.max(device.needed_bytes, device.available_bytes, 1);
    const words = device.parts.map((p) => `${p.name} ${bytesText(p.bytes)}`).join(", ");
    const bar = element("div", { class: "wb-bar wb-bar-tall", role: "img", "aria-label": `${words}; ${bytesText(device.available_bytes)} available` },
      ...device.parts.map((p, index) => element("span", { style: `width:${(100 * p.bytes) / scale}%;background:var(${COLORS[index % 6]})` })),
      element("b", { class: "wb-limit", style: `left:${(100 * device.available_bytes) / scale}%`, title: "available now" }),
    );
    return element("div", { class: "wb-plan-device" },
      element("div", { class: "wb-row wb-between" },
        element("span", {}, element("strong", {}, device.label), ` ${device.name}`),
        element("span", {}, `needs ${bytesText(device.needed_bytes)} of ${bytesText(device.available_bytes)} available: ${device.verdict}`)),
      bar,
      element("div", { class: "wb-legends" }, ...device.parts.map(legend)),
    );
  }

  function update() {
    const state = model.get("state");
    const view = model.get("view");
    root.dataset.state = state;
    root.setAttribute("aria-busy", state === "pricing");
    const hasView = Boolean(view.verdict) && state !== "failed";
    body.hidden = !hasView;
    root.dataset.verdict = hasView ? view.verdict : "";
    if (!hasView) {
      head.replaceChildren(state === "pricing" ? "Planning\u2026" : state === "failed" ? "No plan for this choice" : "Choose a model to see what it takes.");
    } else {
      const spare = view.margin_bytes >= 0 ? `${bytesText(view.margin_bytes)} to spare` : `${bytesText(-view.margin_bytes)} too little`;
      head.replaceChildren(
        element("span", { class: "wb-verdict", "data-verdict": view.verdict }, `${MARKS[view.verdict]} ${view.verdict}`),
        element("span", {}, ` ${spare}; ${view.title}`),
      );
    }
    showValue(batch, model.get("batch"));
    failure.replaceChildren(...failureNotes(model.get("failure")));
    if (!hasView) return;
    devices.replaceChildren(...view.devices.map(deviceView));
    speeds.replaceChildren(...view.speeds.map(([number, words]) => element("li", {}, element("strong", {}, number), ` ${words}`)));
    const focus = advice.contains(document.activeElement);
    advice.replaceChildren(...(view.advice.length ? [element("p", { class: "wb-label" }, view.verdict === "does not fit" ? "What would make it fit" : "What would leave more room")] : []),
      ...view.advice.map((item, index) => element("div", { class: "wb-advice" },
        button(item.text, `Set the panel to this: ${item.text}`, () => model.send({ type: "apply", index }), "wb-small"),
        element("span", { class: "wb-hint" }, `${item.cost}; then it ${item.verdict === "tight" ? "is tight" : item.verdict}`))),
      ...(view.no_advice ? [element("p", {}, view.no_advice)] : []));
    if (focus) advice.querySelector("button")?.focus();
    const rows = model.get("measured");
    measured.replaceChildren(...(rows.length ? [element("table", { class: "wb-figures" },
      element("caption", {}, "Predicted and measured"),
      element("thead", {}, element("tr", {}, ...["", "Predicted", "Measured", "Difference"].map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((text, index) => element(index ? "td" : "th", index ? {} : { scope: "row" }, text))))))] : []));
    notes.replaceChildren(element("details", {}, element("summary", {}, "Where this comes from"),
      element("p", { class: "wb-hint" }, view.origin),
      element("p", { class: "wb-hint" }, `While loading, the host needs ${bytesText(view.host.needed_bytes)} of ${bytesText(view.host.available_bytes)}: ${view.host.verdict}.`),
      ...view.notes.map((text) => element("p", { class: "wb-hint" }, text))));
  }

  // What was entered and can't be is taken back, and the reason stands beside it.
  function receive(content) {
    if (content.type !== "refused") return;
    batch.value = model.get("batch");
    batchField.hint.textContent = content.cause;
  }

  model.on("msg:custom", receive);
  const end = follow(model, ["state", "view", "batch", "measured", "failure"], update);
  return () => {
    model.off("msg:custom", receive);
    end();
  };
}

export default { initialize, render };
