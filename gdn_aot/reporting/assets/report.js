// Draws what is opened: keys, candidates and plots, from the data of the page. Texts become text nodes, never markup.
"use strict";
(() => {
  const { texts, timings, groups } = JSON.parse(document.getElementById("data").textContent);
  const PROVENANCES = ["measured", "proxy", "captured", "transferred", "default"];
  const VERDICTS = ["faster", "slower", "within noise", "same configuration", "no common times", "only in A", "only in B"];
  const FLAGS = [[1, "the record's choice"], [2, "spills"], [4, "not the provider's own"], [8, "fewer blocks on an SM"]];
  const SOUND_LOCAL = 192; // bytes of local memory per thread; gdn_aot/launches.py
  const text = (number) => (number === null ? "" : texts[number]);
  const percent = (thousandths) => `${(thousandths / 10).toFixed(1)} %`;
  const ratio = (thousandths) => (1 + thousandths / 1000).toFixed(3);
  let made = 0;

  function el(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined).map((c) => (typeof c === "number" ? String(c) : c)));
    return element;
  }

  function table(caption, headers, rows, numeric) {
    const aligned = (place) => ({ class: numeric.has(place) ? "n" : null });
    const head = el("tr", {}, ...headers.map((one, place) => el("th", { scope: "col", ...aligned(place) }, one)));
    const body = el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell, place) =>
      el(place ? "td" : "th", { scope: place ? null : "row", ...aligned(place) }, cell)))));
    const inner = el("table", {}, el("caption", {}, caption), el("thead", {}, head), body);
    return el("div", { class: rows.length > 20 ? "scroll long" : "scroll", role: "group", "aria-label": caption }, inner);
  }

  // The plotting library is evaluated when the first plot is drawn: a page that is only read does without.
  function library() {
    if (!window.vegaEmbed) document.head.append(el("script", {}, document.getElementById("plotting").textContent));
    return window.vegaEmbed;
  }

  const CONFIG = {
    background: null, font: "inherit", view: { stroke: null }, mark: { aria: false }, legend: { orient: "top", title: null, labelLimit: 0, columns: innerWidth < 480 ? 1 : 4 },
    axis: { grid: true, gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)", titleFontWeight: "normal", labelLimit: 260 },
  };

  function figure(title, description, spec) {
    const place = el("div", { class: "plot" });
    const whole = el("figure", {}, el("figcaption", {}, title), place);
    const full = { width: "container", autosize: { type: "fit-x", contains: "padding" }, config: CONFIG, description, ...spec };
    const options = { actions: false, ast: true, renderer: "svg", defaultStyle: false, tooltip: { disableDefaultStyle: true } };
    const draw = () => library()(place, full, options).catch((error) => place.replaceChildren(`This cannot be drawn here: ${error.message}`));
    requestAnimationFrame(draw); // when it is in the page, and has a width
    return whole;
  }

  const scale = (domain, names) => ({ domain, range: names.map((name) => `var(--${name})`) });
  const tokensAxis = (field) => ({ field, type: "ordinal", title: "tokens", axis: { labelAngle: 0 } });

  // Lines of all candidates of a key; those that are shipped, by number of their text, are drawn last and thickest.
  function lines(rows, tokens, shipped, asRatio) {
    const best = tokens.map((_, place) => Math.min(...rows.filter((row) => row[2] !== null).map((row) => row[3][place])));
    const first = rows.find((row) => row[2] !== null);
    const kind = (row) => shipped.get(row[0]) || (row === first ? "best on average" : "other candidates");
    const KINDS = ["other candidates", "best on average", ...shipped.values()];
    const layers = KINDS.map((name, order) => ({
      data: { values: rows.filter((row) => kind(row) === name).flatMap((row) => tokens.map((count, place) => ({
        tokens: count, kind: name, configuration: text(row[0]), us: row[3][place], ratio: row[3][place] / best[place],
      }))).filter((point) => point.us !== null && Number.isFinite(point.ratio)) },
      mark: { type: "line", point: { size: 20 + 25 * order }, strokeWidth: [1, 2, 3, 3][order], strokeDash: [[], [6, 3], [], [2, 2]][order], aria: false, opacity: order ? 1 : 0.55 },
      encoding: {
        x: { field: "tokens", type: "quantitative", scale: { type: "log", base: 2 }, axis: { values: tokens, title: "tokens" } },
        y: asRatio
          ? { field: "ratio", type: "quantitative", title: "time / best time", scale: { type: "log", nice: false }, axis: { format: "~r", tickCount: 5 } }
          : { field: "us", type: "quantitative", title: "microseconds", scale: { type: "log", nice: false }, axis: { format: "~s", tickCount: 5 } },
        color: { field: "kind", type: "nominal", scale: scale(KINDS, ["other", "best", "chosen", "proxy"].slice(0, KINDS.length)) },
        detail: { field: "configuration" },
        tooltip: [{ field: "configuration" }, { field: "tokens" }, { field: "us", title: "microseconds" }, { field: "ratio", title: "of the best", format: ".3f" }],
      },
    }));
    return { height: 230, layer: layers.filter((layer) => layer.data.values.length), resolve: { scale: { color: "shared" } } };
  }

  function timesOf(number, shipped) {
    const { key, where, call, note, tokens, rows, missing } = timings[number];
    const timed = rows.filter((row) => row[3].some((us) => us !== null));
    const marks = (row) => [shipped.get(row[0]), ...FLAGS.filter(([bit]) => row[1] & bit).map(([, said]) => said), text(row[6])];
    const cells = rows.map((row) => [
      text(row[0]), marks(row).filter(Boolean).join("; "), row[2] === null ? "" : (row[2] / 1000).toFixed(3),
      ...row[3].map((us, place) => (us === null ? "" : `${us} ± ${row[4][place]}`)),
      ...(row[5] || ["", "", ""]),
    ]);
    const headers = ["Candidate", "Remarks", "Score", ...tokens.map((count) => `µs at ${count}`), "Registers", "Shared", "Local"];
    const facts = [["Measured", text(where)], ["Of the key", text(key)], ["Call", text(call)], ["The record's choice", text(note)],
      ["Not measured", missing.length ? `at ${missing.join(", ")} tokens` : ""]];
    const said = `Times of ${timed.length} candidates at ${tokens.join(", ")} tokens; the table below has them.`;
    return el("div", {},
      el("dl", {}, ...facts.filter(([, what]) => what).map(([name, what]) => el("div", {}, el("dt", {}, name), el("dd", {}, what)))),
      timed.length ? el("div", { class: "pair" },
        figure("Time of every candidate", said, lines(timed, tokens, shipped, false)),
        figure("Time of every candidate / best time at that length", said, lines(timed, tokens, shipped, true))) : null,
      table("Candidates, the best on average first", headers, cells, new Set(headers.map((_, place) => place).filter((place) => place > 1))));
  }

  // A table of keys that can be filtered; the times of a key are opened below it, where there is room for plots.
  function keys(caption, headers, rows, numeric) {
    const name = `filter-${made += 1}`;
    const status = el("output", { for: name }, `${rows.length} of ${rows.length}`);
    const field = el("input", { type: "search", id: name, autocomplete: "off", spellcheck: "false" });
    const moved = new Set([...numeric].map((place) => place + 1));
    const whole = table(caption, [headers[0], "Times", ...headers.slice(1)], rows.map(({ cells }) => [cells[0], "", ...cells.slice(1)]), moved);
    const panels = el("div", {});
    const lines = [...whole.querySelectorAll("tbody tr")];
    lines.forEach((line, place) => {
      if (rows[place].numbers.length) line.children[1].append(opener(panels, rows[place]));
    });
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      const shown = lines.filter((line, place) => {
        const text = rows[place].cells.join(" ").toLowerCase();
        line.hidden = !words.every((word) => text.includes(word));
        return !line.hidden;
      });
      status.textContent = `${shown.length} of ${rows.length}`;
    });
    return el("div", {}, el("p", { class: "filter" }, el("label", { for: name }, "Filter keys "), field, " ", status), whole, panels);
  }

  function opener(panels, { numbers, shipped, said, warning }) {
    const id = `times-${made += 1}`;
    const button = el("button", { type: "button", "aria-expanded": "false" }, "Times", el("span", { class: "vh" }, ` of ${said}`));
    const close = (panel) => {
      panel.remove();
      button.setAttribute("aria-expanded", "false");
      button.removeAttribute("aria-controls");
      button.focus();
    };
    button.addEventListener("click", () => {
      const there = document.getElementById(id);
      if (there) return close(there);
      const above = panels.closest("details").querySelector("summary > :is(h2, h3, h4)").tagName;
      const heading = el(`h${Number(above[1]) + 1}`, { id: `${id}-title`, tabindex: -1 }, `Times of ${said}`);
      const closer = el("button", { type: "button" }, "Close");
      const panel = el("section", { id, class: "times", "aria-labelledby": `${id}-title` }, heading, closer);
      closer.addEventListener("click", () => close(panel));
      panels.prepend(panel);
      if (warning) panel.append(el("p", {}, warning));
      panel.append(...numbers.map((number) => timesOf(number, shipped)));
      watch(panel);
      button.setAttribute("aria-expanded", "true");
      button.setAttribute("aria-controls", id);
      panel.scrollIntoView({ block: "start" });
      heading.focus({ preventScroll: true });
    });
    return button;
  }

  function strip(values, y, colour) {
    return {
      height: 200, data: { values },
      mark: { type: "point", filled: true, size: 28, opacity: 0.75, aria: false },
      encoding: {
        x: tokensAxis("tokens"), xOffset: { field: "place", type: "quantitative", scale: { zero: false, padding: 12 } }, y,
        color: colour, shape: { field: colour.field, scale: { domain: colour.scale.domain } },
        tooltip: [{ field: "key" }, { field: "configuration" }, { field: "tokens" }, { field: y.field, title: y.title, format: ".3f" }, { field: colour.field }],
      },
    };
  }

  const union = (lists) => [...new Set(lists.flat())].sort((one, two) => one - two);

  function choices({ rows }) {
    const tokens = union(rows.filter((row) => row[6]).map((row) => timings[row[5]].tokens));
    const at = (row, count) => (row[6] ? row[6][timings[row[5]].tokens.indexOf(count)] : undefined);
    const values = rows.flatMap((row, place) => tokens.filter((count) => at(row, count) !== undefined).map((count) => ({
      tokens: count, place, regret: at(row, count) / 10, provenance: PROVENANCES[row[2]], key: text(row[0]), configuration: text(row[1]),
    })));
    const known = PROVENANCES.filter((name) => values.some((value) => value.provenance === name));
    const plot = values.length ? figure("Regret of every key by length: time of its choice / time of the best candidate - 1",
      `Regret of ${rows.filter((row) => row[6]).length} keys at ${tokens.join(", ")} tokens; the table below has it.`,
      strip(values, { field: "regret", type: "quantitative", title: "regret in %", scale: { type: "symlog", constant: 1 }, axis: { tickCount: 5 } },
        { field: "provenance", type: "nominal", scale: scale(known, known) })) : null;
    const expected = rows.some((row) => row[8] !== null) ? ["Expected error"] : [];
    const users = rows.some((row) => text(row[9])) ? ["Models"] : [];
    const listed = rows.map((row) => ({
      cells: [text(row[0]), ...users.map(() => text(row[9])), text(row[1]) + (row[3] ? " (not the provider's own)" : ""), PROVENANCES[row[2]],
        ...tokens.map((count) => (at(row, count) === undefined ? "" : percent(at(row, count)))),
        ...expected.map(() => (row[6] ? "" : text(row[8]))), text(row[4])],
      numbers: row[5] === null ? [] : [row[5]], shipped: new Map([[row[1], "this choice"]]), said: text(row[0]),
      warning: row[7] ? "This choice was transferred. These are the times of the key and target from which it was taken, not its own." : null,
    }));
    const headers = ["Key", ...users, "Configuration", "Provenance", ...tokens.map((count) => `Regret at ${count}`), ...expected, "Why"];
    return [plot, keys("Choices by autotune key", headers, listed, new Set(tokens.map((_, place) => place + 3 + users.length)))];
  }

  // What each side ships, by number of its text.
  function both(first, second) {
    if (first === second) return new Map([[first, "in A and B"]]);
    return new Map([[first, "in A"], [second, "in B"]].filter(([number]) => number !== null));
  }

  function compare({ rows }) {
    const sorted = [...rows].sort((one, two) => (two[4] ?? -1e9) - (one[4] ?? -1e9));
    const tokens = union(sorted.map((row) => row[5]));
    const at = (row, count) => row[6][row[5].indexOf(count)];
    const values = sorted.flatMap((row, place) => row[5].map((count) => ({
      tokens: count, place, ratio: 1 + at(row, count) / 1000, verdict: VERDICTS[row[3]], key: text(row[0]), configuration: `${text(row[1])} -> ${text(row[2])}`,
    })));
    const known = VERDICTS.filter((name) => values.some((value) => value.verdict === name));
    const all = values.map((value) => value.ratio);
    const domain = [Math.min(0.95, 0.98 * Math.min(...all)), Math.max(1.05, 1.02 * Math.max(...all))];
    const names = { faster: "best", slower: "chosen", "within noise": "other" };
    const plot = values.length ? figure("Time in B / time in A of every key by length; below 1 is faster",
      `Ratios of ${values.length} times; the table below has them.`,
      strip(values, { field: "ratio", type: "quantitative", title: "B / A", scale: { type: "log", nice: false, domain }, axis: { format: "~r", tickCount: 5 } },
        { field: "verdict", type: "nominal", scale: scale(known, known.map((name) => names[name] || "other")) })) : null;
    const listed = sorted.map((row) => ({
      cells: [text(row[0]), row[1] === null ? "-" : text(row[1]), row[2] === row[1] ? "the same" : row[2] === null ? "-" : text(row[2]),
        VERDICTS[row[3]], row[4] === null ? "" : ratio(row[4]),
        ...tokens.map((count) => (at(row, count) === undefined ? "" : ratio(at(row, count))))],
      numbers: row[7], shipped: both(row[1], row[2]), said: text(row[0]),
    }));
    const headers = ["Key", "Configuration in A", "In B", "B is", "B / A", ...tokens.map((count) => `At ${count}`)];
    return [plot, keys("Keys, the most slowed first", headers, listed, new Set(tokens.map((_, place) => place + 5).concat(4)))];
  }

  function resources({ rows }) {
    const SPILLS = ["none", `up to ${SOUND_LOCAL}`, "more"];
    const values = rows.map(([kernel, registers, shared, local, count]) => ({
      kernel: text(kernel), registers, shared, local, binaries: count, spilled: SPILLS[local === 0 ? 0 : local <= SOUND_LOCAL ? 1 : 2],
    }));
    const colour = { field: "spilled", type: "nominal", scale: scale(SPILLS, ["best", "transferred", "chosen"]), legend: { title: "bytes of local memory per thread" } };
    const facet = (field, title) => ({
      height: 24 * new Set(values.map((value) => value.kernel)).size, data: { values }, mark: { type: "point", filled: true, opacity: 0.75, aria: false },
      encoding: {
        x: { field, type: "quantitative", title, axis: { tickCount: 6, format: "~s" } }, y: { field: "kernel", type: "nominal", title: null, axis: { labelLimit: 220 } }, color: colour,
        shape: { field: "spilled", scale: { domain: SPILLS }, legend: { title: "bytes of local memory per thread" } },
        size: { field: "binaries", type: "quantitative", legend: null, scale: { range: [25, 260] } },
        tooltip: ["kernel", "registers", "shared", "local", "binaries"].map((name) => ({ field: name })),
      },
    });
    const counted = rows.map(([kernel, ...rest]) => [text(kernel), ...rest]);
    const said = `Registers and memory of ${rows.length} kinds of binaries; the table below has them.`;
    return [
      el("div", { class: "pair" }, figure("Registers per thread; larger points are more binaries", said, facet("registers", "registers per thread")),
        figure("Shared memory per block", said, facet("shared", "bytes per block"))),
      table("Binaries by registers and memory", ["Kernel", "Registers", "Shared", "Local", "Binaries"], counted, new Set([1, 2, 3, 4])),
    ];
  }

  function numerics({ rows }) {
    const values = rows.filter((row) => row[3] !== null && row[4] > 0).map(([workload, model, result, error, limit, call]) => ({
      workload: text(workload), model: text(model), result: text(result), share: error / limit, error, limit, call: text(call),
    }));
    const known = [...new Set(values.map((value) => value.workload))];
    const spec = {
      height: 26 * new Set(values.map((value) => value.result)).size,
      layer: [
        { data: { values }, mark: { type: "point", filled: true, size: 45, opacity: 0.8, aria: false }, encoding: {
          x: { field: "share", type: "quantitative", title: "error / limit", scale: { domainMin: 0 }, axis: { tickCount: 6 } },
          y: { field: "result", type: "nominal", title: null, axis: { labelLimit: 220 } },
          color: { field: "workload", type: "nominal", scale: scale(known, known.map((_, place) => PROVENANCES[place % PROVENANCES.length])) },
          shape: { field: "workload", scale: { domain: known } },
          tooltip: ["workload", "model", "result", "error", "limit", "call"].map((name) => ({ field: name })) } },
        { data: { values: [{ limit: 1 }] }, mark: { type: "rule", color: "var(--chosen)", strokeDash: [4, 3], aria: false }, encoding: { x: { field: "limit", type: "quantitative" } } },
      ],
    };
    const listed = rows.map(([workload, model, result, error, limit, call]) => [text(result), text(workload), text(model), error === null ? "not a number" : error.toPrecision(3), limit, text(call)]);
    return [values.length ? figure("Largest error of each kind of result / its limit", `Errors of ${values.length} results; the table below has them.`, spec) : null,
      table("Results nearest to their limits", ["Result", "Workload", "Model", "Error", "Limit", "Call"], listed, new Set([3, 4]))];
  }

  const KINDS = { choices, compare, resources, numerics };

  function fill(details) {
    const place = details.querySelector(":scope > .drawn");
    if (!details.open || !place || place.hasChildNodes()) return;
    const group = groups[Number(details.dataset.group)];
    place.append(...KINDS[group.kind](group).filter(Boolean));
    watch(place);
  }

  // The keyboard stops at tables that scroll, and at no others.
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    const scrolls = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
    if (scrolls) target.setAttribute("tabindex", "0"); else target.removeAttribute("tabindex");
  }));
  const watch = (within) => within.querySelectorAll(".scroll").forEach((one) => sizes.observe(one));
  watch(document);

  document.addEventListener("toggle", (event) => { if (event.target.dataset && event.target.dataset.group) fill(event.target); }, true);

  // A link into a part that is closed opens it.
  function follow() {
    const target = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    const inner = target.querySelector(":scope > details.whole");
    if (inner) inner.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", follow);
  follow();
  document.documentElement.dataset.ready = "";
})();
