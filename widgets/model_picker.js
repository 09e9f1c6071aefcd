const OTHER = "\u0000other";

function fillSelect(select, options, value) {
  select.replaceChildren(
    ...options.map((option) =>
      element(
        "option",
        { value: option.value, disabled: option.reason !== null },
        option.reason === null ? option.label : `${option.label} \u2013 not available: ${option.reason}`,
      ),
    ),
  );
  select.value = value;
}

function render({ model, el }) {
  const root = part(el, "wb-picker", "Model choice");
  const choose = (name, value) => model.send({ type: "choose", field: name, value });

  const models = element("select", {
    onchange: () => {
      other.node.hidden = models.value !== OTHER;
      if (models.value === OTHER) other.input.focus();
      else choose("model", models.value);
    },
  });
  const input = element("input", { type: "text", spellcheck: "false", onchange: () => choose("model", input.value) });
  const backends = element("select", { onchange: () => choose("backend", backends.value) });
  const precisions = element("select", { onchange: () => choose("precision", precisions.value) });

  const modelField = field("Model", "Which model to load", models);
  const other = { input, ...field("Folder, .gguf file or hub id", "A local folder, a .gguf file, org/name, or random:preset", input) };
  const backendField = field("Backend", "Which kind of device runs the model", backends);
  const precisionField = field("Precision", "Number format of the weights", precisions);
  const problem = element("p", { class: "wb-problem", role: "alert" });
  root.append(modelField.node, other.node, backendField.node, precisionField.node, problem);

  function update() {
    const name = model.get("model");
    const known = model.get("models");
    const isKnown = known.some((option) => option.value === name);
    fillSelect(models, [...known, { value: OTHER, label: "Other\u2026", reason: null }], isKnown ? name : OTHER);
    other.node.hidden = isKnown;
    input.value = isKnown ? "" : name;
    fillSelect(backends, model.get("backends"), model.get("backend"));
    fillSelect(precisions, model.get("precisions"), model.get("precision"));
    backendField.hint.textContent = model.get("backend_hint");
    precisionField.hint.textContent = model.get("precision_hint");
    problem.textContent = model.get("problem");
  }
  const traits = ["models", "model", "backends", "backend", "precisions", "precision", "problem"];
  return follow(model, [...traits, "backend_hint", "precision_hint"], update);
}

export default { render };
