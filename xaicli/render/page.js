"use strict";
// Hover, highlight, sort, filter, copy, deep links. Without it the pictures, tables and toggles stay.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const tip = make("div", "", { id: "tip", hidden: "" });
  const spoken = make("p", "", { class: "quiet", role: "status" });
  document.body.append(tip, spoken);
  // Beside the range of the values around it a number needs three digits of that range.
  const number = (value, range = 0) => {
    const beyond = range > 0 && Math.abs(value) > range ? Math.ceil(Math.log10(Math.abs(value) / range)) : 0;
    // A share that is not quite all of it must not read as if it were.
    const short = 1 - Math.abs(value);
    const nearly = short > 0 && short < 0.001 ? Math.ceil(-Math.log10(short)) : 0;
    const digits = Math.min(15, Math.max(4, beyond + 3, nearly));
    if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
    return Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
  };
  const rangeOf = (lines) => {
    const [low, high] = lines.flatMap((line) => line.y).filter((y) => y !== null)
      .reduce(([least, most], y) => [Math.min(least, y), Math.max(most, y)], [Infinity, -Infinity]);
    return Math.max(0, high - low);
  };

  // Highlight: everything with the same key, on the whole page.
  let pinned = "";
  const light = (key) => {
    const shown = key || pinned;
    for (const element of all(".on")) element.classList.remove("on");
    document.body.classList.toggle("picking", Boolean(shown));
    if (shown) for (const element of all(`[data-k="${CSS.escape(shown)}"]`)) element.classList.add("on");
  };
  const cardOf = (key) => document.querySelector(`[data-s][data-k="${CSS.escape(key)}"]`);
  const pin = (key, card = cardOf(key)) => {
    pinned = pinned === key ? "" : key;
    light("");
    if (!card) return;
    const { s, at } = card.dataset;
    // Throws in a frame without an address of its own.
    const where = "#s=" + encodeURIComponent(s) + (at ? "&at=" + encodeURIComponent(at) : "");
    try { history.replaceState(null, "", pinned ? where : "#"); } catch { /* stays */ }
  };

  // Charts: the nearest point of the nearest line, by pointer or by keys.
  const scale = (value, from, to, log) => log
    ? (Math.log(value) - Math.log(from)) / (Math.log(to) - Math.log(from))
    : (value - from) / (to - from);
  const points = (svg, lines) => {
    // A chart that flows is as large as its axes; others say where they lie.
    const [left, top, right, bottom] = svg.dataset.box ? svg.dataset.box.split(" ").map(Number)
      : [0, 0, svg.clientWidth, svg.clientHeight];
    const [x0, x1] = svg.dataset.x.split(" ").map(Number);
    const own = svg.dataset.own && svg.closest(".either").querySelector("input:nth-of-type(2):checked");
    const [y0, y1, log] = (own ? svg.dataset.own : svg.dataset.y).split(" ");
    const found = [];
    lines.forEach((line, order) => line.y.forEach((y, i) => {
      if (y === null || (log && y <= 0)) return;
      const px = left + (right - left) * scale(line.x[i], x0, x1);
      const py = bottom - (bottom - top) * scale(y, Number(y0), Number(y1), log);
      if (py >= top - 2 && py <= bottom + 2) found.push({ order, i, px, py });
    }));
    return found;
  };
  const describe = (data, line, i) => {
    const other = data.o && data.o.at.indexOf(line.x[i]);
    const also = other >= 0 ? ` (${data.o.l} ${number(data.o.v[other])})` : "";
    const said = [`${data.xl} ${number(line.x[i])}${also}${data.yl ? ", " + data.yl : ""}: ${number(line.y[i], data.range)}`];
    if (line.lo && line.lo[i] !== null) said.push(`${number(line.lo[i], data.range)} to ${number(line.hi[i], data.range)}`);
    if (line.c) said.push("n = " + line.c[i].toLocaleString("en"));
    if (line.t) said.push(line.t);
    return said;
  };
  const show = (svg, data, point) => {
    const line = data.lines[point.order];
    const at = new DOMPoint(point.px, point.py).matrixTransform(svg.getScreenCTM());
    const said = line.y[point.i] === undefined ? [] : describe(data, line, point.i);
    tip.replaceChildren(make("b", line.n), ...said.map((text) => make("span", text)));
    const picture = line.k && document.querySelector(`[data-k="${CSS.escape(line.k)}"] img.picture`);
    if (picture) tip.prepend(picture.cloneNode());
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(at.x - box.width / 2, innerWidth - box.width - 4)) + "px";
    tip.style.top = (at.y - box.height - 14 < 4 ? at.y + 16 : at.y - box.height - 14) + "px";
    let dot = svg.querySelector("circle.here");
    if (!dot) {
      dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      dot.setAttribute("class", "here");
      dot.setAttribute("r", 3.2);
      svg.append(dot);
    }
    dot.setAttribute("cx", point.px);
    dot.setAttribute("cy", point.py);
    light(line.k);
    return [line.n, ...said].join(", ");
  };
  const hide = (svg) => {
    tip.hidden = true;
    for (const dot of all("circle.here", svg)) dot.remove();
    light("");
  };
  const watch = (svg, data) => {
    let spots = null;
    let shape = "";
    let current = null;
    const known = () => {
      const now = `${svg.clientWidth} ${svg.querySelector(".same")?.getBoundingClientRect().height}`;
      if (now !== shape) [spots, shape] = [points(svg, data.lines), now];
      return spots;
    };
    svg.addEventListener("pointermove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const far = (p) => 4 * (p.px - at.x) ** 2 + (p.py - at.y) ** 2;
      current = known().reduce((best, p) => (!best || far(p) < far(best) ? p : best), null);
      if (current && far(current) < 60 ** 2) show(svg, data, current); else hide(svg);
    });
    svg.addEventListener("pointerleave", () => hide(svg));
    svg.addEventListener("click", () => {
      const line = current && data.lines[current.order];
      if (line && line.k) pin(line.k);
    });
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (event.key === "Escape") { pinned = ""; hide(svg); }
      if (event.key === "Enter" && current) pin(data.lines[current.order].k);
      if (!step || !known().length) return;
      event.preventDefault();
      const orders = [...new Set(known().map((p) => p.order))];
      const order = current ? current.order : orders[0];
      const next = orders[(orders.indexOf(order) + step[0] + orders.length) % orders.length];
      const line = known().filter((p) => p.order === next);
      const place = current ? line.findIndex((p) => p.i >= current.i) : line.length - 1;
      current = line[Math.max(0, Math.min(line.length - 1, (place < 0 ? line.length - 1 : place) + step[1]))];
      spoken.textContent = show(svg, data, current);
    });
    svg.addEventListener("blur", () => hide(svg));
    if (!svg.closest(".cell")) svg.setAttribute("tabindex", "0");
  };
  for (const figure of all("figure[data-d]")) {
    const data = charts[figure.dataset.d];
    if (!data) continue;
    for (const line of data.lines) line.x ??= data.x;
    data.range ??= rangeOf(data.lines.filter((line) => line.y));
    for (const svg of all("svg[data-x]", figure)) watch(svg, data);
  }

  // Cards and rows light their line; a button pins them; #s=<id> finds them, &at=<mode/ds_id> those of a place.
  for (const card of all("[data-s]")) {
    const title = card.querySelector("h3, h4");
    const button = make("button", title.textContent, { type: "button", title: "keep this sample lit" });
    title.replaceChildren(button);
    button.addEventListener("click", () => pin(card.dataset.k, card));
  }
  for (const element of all("[data-s], tr[data-k], .cell[data-k]")) {
    element.addEventListener("pointerenter", () => light(element.dataset.k));
    element.addEventListener("pointerleave", () => light(""));
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") { pinned = ""; light(""); } });
  const absent = make("p", "", { class: "warnings", role: "status", hidden: "" });
  document.querySelector("header").append(absent);
  const follow = () => {
    const asked = /^#s=(.*?)(?:&at=([^&]*))?$/.exec(location.hash);
    if (!asked) return;
    let wanted = "", at = "";
    try { [wanted, at] = [asked[1], asked[2] ?? ""].map(decodeURIComponent); } catch { return; }
    // Of what stands for samples of several places each is on a line of its own.
    const places = at.split("\n");
    const isThere = (own) => !at || !own || own.split("\n").some((place) => places.includes(place));
    const card = all("[data-s]").find(({ dataset }) => dataset.s === wanted && isThere(dataset.at));
    const of = at ? " of " + places.map((place) => place.split("/").filter(Boolean).join(" ")).join(", ") : "";
    const advice = absent.parentElement.dataset.absent;
    absent.textContent = card ? "" : `Sample ${wanted}${of} is not on this page${advice ? "; " + advice : ""}.`;
    absent.hidden = Boolean(card);
    if (!card) return;
    pinned = "";
    pin(card.dataset.k, null);
    card.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", follow);
  follow();

  // Tables: sort, filter, copy.
  // Of a text that is cut the title has all.
  const value = (cell) => cell.dataset.v ?? (cell.title || cell.textContent);
  const whole = /^-?\d[\d,]*$/;
  const compare = (a, b) => {
    // Beyond 2^53 neighbours are one and the same as floating-point numbers.
    if (whole.test(a) && whole.test(b)) {
      const [m, n] = [BigInt(a.replace(/,/g, "")), BigInt(b.replace(/,/g, ""))];
      return m < n ? -1 : Number(m > n);
    }
    const [x, y] = [Number(a.replace(/,/g, "")), Number(b.replace(/,/g, ""))];
    if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  };
  const sort = (table, column, heading) => {
    const up = heading.getAttribute("aria-sort") === "descending" || (!heading.hasAttribute("aria-sort")
      && !heading.classList.contains("num"));
    for (const other of all("th", table)) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const missing = (text) => text === "" || text === "–" || text === "nan";
    const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[column]), row]);
    rows.sort(([a], [b]) => missing(a) - missing(b) || (up ? compare(a, b) : compare(b, a)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  const quoted = (text) => {
    // A spreadsheet would run such text as a formula.
    const number = /^'*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
    const safe = /^'*[=+\-@\t\r]/.test(text) && !number.test(text) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const copied = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* not allowed here: the old way */ }
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  for (const table of all("table")) {
    all("th", table).forEach((heading, column) => {
      if (!heading.textContent) return;
      const button = make("button", heading.textContent, { type: "button" });
      heading.replaceChildren(button);
      button.addEventListener("click", () => sort(table, column, heading));
    });
    const rows = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
    const tools = make("div", "", { class: "tools" });
    const filter = make("input", "", { type: "search", placeholder: "filter rows", "aria-label": "filter rows" });
    filter.addEventListener("input", () => {
      const wanted = filter.value.toLowerCase();
      for (const row of table.tBodies[0].rows) row.hidden = ![row.textContent, ...[...row.cells].map((cell) => cell.title)].some((text) => text.toLowerCase().includes(wanted));
    });
    const copy = make("button", "copy as CSV", { type: "button" });
    if (table.querySelector("th.drawn")) copy.title = "without the histories that are drawn; the files have their values";
    copy.addEventListener("click", async () => {
      const drawn = all("th", table).map((heading) => heading.classList.contains("drawn"));
      const cells = (row) => [...row.cells].filter((_, column) => !drawn[column]);
      const lines = [table.tHead.rows[0], ...rows()].map((row) => cells(row).map((c) => quoted(value(c))).join(","));
      copy.textContent = (await copied(lines.join("\r\n") + "\r\n")) ? "copied" : "not allowed here";
      setTimeout(() => { copy.textContent = "copy as CSV"; }, 1500);
    });
    if (table.tBodies[0].rows.length > 5) tools.append(filter);
    tools.append(copy);
    table.parentElement.before(tools);
  }

  // A command breaks between its words, not at the hyphens of an option; a path may be longer than a phone is wide.
  for (const command of all(".command")) {
    const words = command.textContent.split(" ");
    command.replaceChildren(...words.flatMap((word, i) => [i ? " " : "", make("span", word, word.length < 31 ? { class: "whole" } : {})]));
  }

  // Saliency: how much of the map lies over the input.
  for (const maps of all(".maps")) {
    if (!maps.querySelector(".over")) continue;
    const set = make("fieldset", "", { class: "opacity" });
    const slider = make("input", "", { type: "range", min: 0, max: 100, value: 60, "aria-label": "opacity" });
    slider.addEventListener("input", () => maps.style.setProperty("--opacity", slider.value / 100));
    set.append(make("legend", "opacity"), slider);
    maps.querySelector(".controls").append(set);
  }

  // Light or dark by hand.
  const root = document.documentElement;
  const theme = make("button", "◐", { type: "button", class: "theme", "aria-label": "light or dark" });
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  document.body.append(theme);
})();
