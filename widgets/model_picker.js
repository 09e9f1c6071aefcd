const OTHER = "\u0000other";
const SIZE_LABELS = { tensor: "Tensor size", pipeline: "Pipeline stages", data: "Replicas" };
const SIZE_TITLES = {
  tensor: "Over how many devices every layer is split",
  pipeline: "How many devices in a row have some of the layers each",
  data: "How many copies of the model serve at once",
};

function fillSelect(select, options, value) {
  select.replaceChildren(
    ...options.map((option) =>
      element(
        "option",
        { value: option.value, disabled: option.reason !== null, title: option.reason ?? "" },
        option.reason === null ? option.label : `${option.label} \u2013 not available: ${option.reason}`,
      ),
    ),
  );
  select.value = value;
}

function render({ model, el }) {
  const root = part(el, "wb-picker", "Model choice");
  const choose = (name, value) => model.send({ type: "choose", field: name, value });
  const picker = (name) => {
    const select = element("select", { onchange: () => choose(name, select.value) });
    return select;
  };

  const models = element("select", {
    onchange: () => {
      other.node.hidden = models.value !== OTHER;
      if (models.value === OTHER) other.input.focus();
      else choose("model", models.value);
    },
  });
  const input = element("input", { type: "text", spellcheck: "false", onchange: () => choose("model", input.value) });
  const sizeInputs = Object.fromEntries(["tensor", "pipeline", "data"].map((kind) => {
    const input = element("input", { type: "number", min: "1", step: "1", onchange: () => choose(`${kind}_size`, typedNumber(input)) });
    return [`${kind}_size`, { input, ...field(SIZE_LABELS[kind], SIZE_TITLES[kind], input) }];
  }));
  const [backends, precisions, kvDtypes, engines, splits] = ["backend", "precision", "kv_dtype", "engine_name", "split"].map(picker);
  const context = element("input", {
    type: "text", inputmode: "numeric", spellcheck: "false", autocomplete: "off",
    onchange: () => choose("context_length", typedNumber(context)),
  });
  const offload = element("input", {
    type: "number", min: "1", step: "1",
    onchange: () => choose("cpu_offload_layers", typedNumber(offload)),
  });

  const draft = element("input", { type: "text", spellcheck: "false", onchange: () => choose("draft_model", draft.value) });

  const modelField = field("Model", "Which model to load", models);
  const other = { input, ...field("Folder, .gguf file or hub id", "A local folder, a .gguf file, org/name, or random:preset", input) };
  const backendField = field("Backend", "Which kind of device runs the model", backends);
  const precisionField = field("Weights", "Precision or quantisation of the weights", precisions);
  const contextField = field("Context length, tokens", "Most tokens of one request; empty: as many as the model allows", context);
  const kvField = field("Keys and values", "What the KV cache is kept in", kvDtypes);
  const offloadField = field("Layers in the host's memory", "Layers that are copied to the GPU for each step; empty: none", offload);
  const draftField = field("Draft model", "A smaller model with the same vocabulary that guesses ahead: the same text in fewer passes; empty: none", draft);
  const engineField = field("Engine", "What computes; another one takes its own settings", engines);
  const splitField = field("Several devices", "How the model is spread over GPUs, or over processes on the CPU", splits);
  const gpus = element("fieldset", { class: "wb-field wb-checks" });
  const problem = element("p", { class: "wb-problem", role: "alert" });

  const text = element("input", { type: "search", spellcheck: "false", onkeydown: (event) => { if (event.key === "Enter") find(); } });
  const find = () => model.send({ type: "find", text: text.value });
  const searchField = field("Search the Hugging Face Hub", "A part of a model's name; needs the network", text);
  const note = element("span", { class: "wb-hint", role: "status" });
  const results = element("ul", { class: "wb-results" });
  const save = button("Save as default", "Take this choice whenever this model is chosen", () => model.send({ type: "save" }), "wb-small");
  const forget = button("Forget default", "Forget the choice saved for this model", () => model.send({ type: "forget" }), "wb-small");

  root.append(
    element("div", { class: "wb-grid" }, modelField.node, other.node, backendField.node, precisionField.node, contextField.node),
    gpus,
    element("details", { class: "wb-fold" }, element("summary", {}, "More: cache precision, draft model, several devices, hub search, saved default"),
      element("div", { class: "wb-grid" }, kvField.node, offloadField.node, draftField.node, engineField.node, splitField.node, ...Object.values(sizeInputs).map((size) => size.node)),
      element("div", { class: "wb-row wb-end" }, searchField.node, button("Search", "Search the hub", find, "wb-small"), note),
      results,
      element("div", { class: "wb-row" }, save, forget)),
    problem,
  );

  function update() {
    const name = model.get("model");
    const known = model.get("models");
    const isKnown = known.some((option) => option.value === name);
    fillSelect(models, [...known, { value: OTHER, label: "Other\u2026", reason: null }], isKnown ? name : OTHER);
    other.node.hidden = isKnown;
    showValue(input, isKnown ? "" : name);
    fillSelect(backends, model.get("backends"), model.get("backend"));
    fillSelect(precisions, model.get("precisions"), model.get("precision"));
    fillSelect(kvDtypes, model.get("kv_dtypes"), model.get("kv_dtype"));
    fillSelect(engines, model.get("engines"), model.get("engine_name"));
    fillSelect(splits, model.get("splits"), model.get("split"));
    splitField.hint.textContent = model.get("split_hint");
    const sizes = model.get("sizes");
    for (const [name, size] of Object.entries(sizeInputs)) {
      size.node.hidden = !(name in sizes);
      showValue(size.input, sizes[name] ?? "");
    }
    showValue(offload, model.get("cpu_offload_layers") ?? "");
    showValue(draft, model.get("draft_model"));
    draft.disabled = model.get("draft_reason") !== "";
    draftField.hint.textContent = draft.disabled ? `Not available: ${model.get("draft_reason")}.` : "A smaller model that guesses ahead; same text.";
    offloadField.node.hidden = model.get("gpu_options").length === 0;
    showValue(context, model.get("context_length") ?? "");
    const most = model.get("max_context");
    contextField.hint.textContent = most ? `The model allows up to ${most.toLocaleString("en")}.` : "";
    backendField.hint.textContent = model.get("backend_hint");
    precisionField.hint.textContent = model.get("precision_hint");
    problem.textContent = model.get("problem");
    setUsable(forget, model.get("saved"));
    save.textContent = model.get("saved") ? "Replace default" : "Save as default";
    note.textContent = model.get("search_note");
  }

  function updateGpus() {
    const options = model.get("gpu_options");
    gpus.hidden = options.length === 0;
    gpus.replaceChildren(element("legend", { class: "wb-label" }, "GPUs"), ...options.map((option) => {
      const index = Number(option.value);
      const box = element("input", { type: "checkbox", onchange: () => {
        const others = model.get("split") === "auto" ? [] : model.get("gpus").filter((one) => one !== index);
        choose("gpus", box.checked ? [...others, index] : others);
      } });
      box.checked = model.get("gpus").includes(index);
      return element("label", { class: "wb-check" }, box, ` ${option.label}`);
    }));
  }

  function updateFound() {
    results.replaceChildren(...model.get("found").map(({ name, facts }) =>
      element("li", {}, button(name, `Choose ${name}`, () => choose("model", name), "wb-small"), element("span", { class: "wb-hint" }, ` ${facts}`))));
  }

  const lists = ["models", "backends", "precisions", "kv_dtypes", "engines", "splits"];
  const values = ["model", "backend", "precision", "kv_dtype", "split", "sizes", "split_hint", "context_length", "max_context", "cpu_offload_layers", "draft_model", "draft_reason", "engine_name", "gpu_options"];
  const endings = [
    follow(model, [...lists, ...values, "problem", "backend_hint", "precision_hint", "saved", "search_note"], update),
    follow(model, ["gpu_options", "gpus", "problem"], updateGpus),
    follow(model, ["found"], updateFound),
  ];
  return () => endings.forEach((end) => end());
}

export default { initialize, render };
