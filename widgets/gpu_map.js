function render({ model, el }) {
  const root = part(el, "wb-gpus", "GPUs");
  const cards = element("div", { class: "wb-cards" });
  const refusals = element("div");
  const links = element("div");
  root.append(cards, links, refusals);

  function card(device) {
    const level = model.get("levels")[device.name] ?? {};
    const used = level.used_bytes ?? device.used_bytes;
    const own = Math.min(level.process_bytes ?? 0, used);
    const isChosen = model.get("chosen").includes(device.name);
    const share = (bytes) => `${(100 * bytes) / device.total_bytes}%`;
    const bar = element("div", { class: "wb-bar", role: "img", "aria-label": `${bytesText(used)} of ${bytesText(device.total_bytes)} in use` },
      element("span", { class: "wb-bar-own", style: `width:${share(own)}` }),
      element("span", { class: "wb-bar-others", style: `width:${share(used - own)}` }),
    );
    const busy = level.busy_percent === undefined ? "" : `, busy ${Math.round(level.busy_percent)} %`;
    const node = element("button", {
      type: "button", class: "wb-card", "aria-pressed": String(isChosen), title: isChosen ? "Leave this GPU out" : "Use this GPU",
      onclick: () => model.send({ type: "choose", name: device.name }),
    },
      element("span", { class: "wb-card-title" }, `${device.name} ${isChosen ? "\u2713 chosen" : ""}`),
      element("span", {}, device.label),
      bar,
      element("span", { class: "wb-hint" }, `${bytesText(device.total_bytes - used)} free of ${bytesText(device.total_bytes)}${busy}`),
      element("span", { class: "wb-hint" }, `this process ${bytesText(own)}, others ${bytesText(used - own)}`),
      ...(model.get("owners")[device.name] ?? []).map((text) => element("span", { class: "wb-hint" }, text)),
    );
    node.dataset.name = device.name;
    return node;
  }

  // Who reaches whom over what, as `nvidia-smi topo -m` lays it out.
  function linkTable(names, pairs) {
    const between = (a, b) => pairs.find((p) => (p.first === a && p.second === b) || (p.first === b && p.second === a));
    const cell = (a, b) => (a === b ? "\u2013" : between(a, b)?.short ?? "?");
    const header = element("tr", {}, element("td", {}), ...names.map((name) => element("th", { scope: "col" }, name)));
    const rows = names.map((row) => element("tr", {},
      element("th", { scope: "row" }, row),
      ...names.map((column) => element("td", { title: between(row, column)?.words ?? "" }, cell(row, column))),
    ));
    const words = [...new Map(pairs.map((p) => [p.short, p.words]))].map(([short, text]) => `${short}: ${text}`);
    return [
      element("div", { class: "wb-table", tabindex: "0", role: "group", "aria-label": "Links between GPUs" },
        element("table", {}, element("tbody", {}, header, ...rows)),
      ),
      element("p", { class: "wb-hint" }, words.join("; ")),
    ];
  }

  function update() {
    const focused = cards.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    const devices = model.get("devices");
    cards.replaceChildren(...devices.map(card));
    if (focused) cards.querySelector(`[data-name="${focused}"]`)?.focus();
    const pairs = model.get("links");
    links.replaceChildren(...(pairs.length ? linkTable(devices.map((device) => device.name), pairs) : []));
    const words = devices.length ? [] : [element("p", {}, "No GPU can be used; models run on the CPU.")];
    refusals.replaceChildren(...words, ...model.get("refusals").map((text) => element("p", { class: "wb-hint" }, text)));
  }

  const sight = reportSight(model);
  sight.watch(root);
  const end = follow(model, ["devices", "refusals", "levels", "owners", "links", "chosen"], update);
  return () => {
    end();
    sight.stop();
  };
}

export default { initialize, render };
