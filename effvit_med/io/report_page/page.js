"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const body = document.querySelector("#cases tbody");
  const rows = Array.from(body.rows);
  const heads = Array.from(document.querySelectorAll("#cases thead button"));
  const states = Array.from(document.querySelectorAll(".states button"));
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const detail = document.getElementById("detail");
  const numeric = new Set(["rank", "found", "score", "seconds", "reasons"]);
  const caseOf = (row) => data[Number(row.dataset.i)];
  const haystack = data.map((c) => c.words.toLowerCase());
  const order = new Intl.Collator("en", { numeric: true });
  let state = "";
  let chosen = null;

  const show = new IntersectionObserver((seen) => {
    for (const each of seen) {
      if (!each.isIntersecting) continue;
      each.target.src = caseOf(each.target.closest("tr")).picture;
      show.unobserve(each.target);
    }
  }, { rootMargin: "400px" });
  document.querySelectorAll("img[data-lazy]").forEach((img) => show.observe(img));

  function compare(a, b, key) {
    const x = a[key], y = b[key];
    if (x === y) return a.rank - b.rank || order.compare(a.case, b.case);
    if (x === null) return 1;   // what is not known comes last in both directions
    if (y === null) return -1;
    return null;
  }

  function sort(button) {
    const head = button.closest("th");
    const key = button.dataset.key;
    const first = key === "rank" || key === "case" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach((each) => each.closest("th").removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    rows.sort((r, s) => {
      const a = caseOf(r), b = caseOf(s);
      const settled = compare(a, b, key);
      if (settled !== null) return settled;
      return sign * (numeric.has(key) ? a[key] - b[key] : order.compare(a[key], b[key]));
    });
    body.append(...rows);
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const i = Number(row.dataset.i);
      const fits = (!state || row.dataset.state === state) && words.every((word) => haystack[i].includes(word));
      row.hidden = !fits;
      count += fits;
    }
    shown.textContent = count === rows.length ? `${count} cases` : `${count} of ${rows.length} cases`;
    document.getElementById("none").hidden = count > 0;
    document.getElementById("cases").hidden = count === 0;
  }

  function make(tag, text, name) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  }

  function section(title, ...nodes) {
    if (nodes.length) detail.append(make("h3", title), ...nodes);
  }

  function list(reasons) {
    const all = make("ul");
    for (const reason of reasons) {
      const item = make("li");
      item.append(make("span", reason.code, "chip"), ` ${reason.message}`);
      all.append(item);
    }
    return all;
  }

  function structures(c) {
    const table = make("table");
    for (const s of c.structures) {
      const line = make("tr");
      line.append(make("td", s.name.replaceAll("_", " ")));
      line.append(make("td", s.volume === null ? "not found" : `${s.volume} mL`, s.volume === null ? "number faint" : "number"));
      const verdict = make("td");
      if (s.verdict) verdict.append(make("span", s.verdict, `badge ${s.verdict}`));
      const codes = make("td");
      for (const reason of s.reasons) {
        const chip = make("span", reason.code, "chip");
        chip.title = reason.message;
        codes.append(chip);
      }
      line.append(verdict, codes);
      table.append(line);
    }
    return table;
  }

  function bar() {
    const all = make("div", undefined, "bar");
    for (const [sign, name, act] of [["↑", "Previous case", () => step(-1)], ["↓", "Next case", () => step(1)], ["×", "Close", close]]) {
      const button = make("button", sign);
      button.type = "button";
      button.title = name;
      button.setAttribute("aria-label", name);
      button.addEventListener("click", act);
      all.append(button);
    }
    return all;
  }

  function open(row, focus) {
    if (chosen) mark(chosen, false);
    chosen = row;
    mark(row, true);
    const c = caseOf(row);
    detail.replaceChildren();
    const top = make("div", undefined, "top");
    top.append(make("span", c.state, `badge ${c.state.replaceAll(" ", "-")}`), make("h2", c.case), bar());
    detail.append(top);
    if (c.message) detail.append(make("p", c.message));
    if (c.overlay || c.picture) {
      const img = make("img");
      img.alt = "The labels over the scan";
      img.src = c.overlay || c.picture;
      img.addEventListener("error", () => { if (c.picture && img.src !== c.picture) img.src = c.picture; }, { once: true });
      if (c.overlay) {
        const link = make("a");
        link.href = c.overlay;
        link.append(img);
        detail.append(link);
      } else detail.append(img);
    }
    if (c.against.length) section("What speaks against it", list(c.against));
    if (c.notes.length) section("What was not judged", ...c.notes.map((note) => make("p", note)));
    if (c.structures.length) section("Structures", structures(c));
    if (c.findings.length) section("Findings of reading and segmenting", list(c.findings));
    if (c.files.length) {
      const files = make("div", undefined, "files");
      for (const file of c.files) {
        const link = make("a", file.kind);
        link.href = file.href;
        files.append(link);
      }
      section("Files", files);
    }
    if (c.trace) section("Where it happened", make("pre", c.trace));
    if (c.phases) section("Seconds", make("p", c.phases));
    detail.hidden = false;
    detail.scrollTop = 0;
    document.body.classList.add("aside");
    history.replaceState(null, "", `#${encodeURIComponent(c.case)}`);
    if (focus) detail.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }

  function mark(row, on) {
    row.classList.toggle("chosen", on);
    row.querySelector(".name").setAttribute("aria-expanded", String(on));
  }

  function close() {
    if (!chosen) return;
    const row = chosen;
    chosen = null;
    mark(row, false);
    detail.hidden = true;
    document.body.classList.remove("aside");
    history.replaceState(null, "", location.pathname + location.search);
    row.querySelector(".name").focus();
  }

  function step(by) {
    const visible = rows.filter((row) => !row.hidden);
    const next = visible[visible.indexOf(chosen) + by];
    if (next) open(next, false);
  }

  heads.forEach((button) => button.addEventListener("click", () => sort(button)));
  states.forEach((button) => button.addEventListener("click", () => {
    state = button.dataset.state;
    states.forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
    filter();
  }));
  search.addEventListener("input", filter);
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !String(getSelection())) open(row, true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target === search || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") close();
    else if (chosen && (event.key === "ArrowDown" || event.key === "j")) { step(1); event.preventDefault(); }
    else if (chosen && (event.key === "ArrowUp" || event.key === "k")) { step(-1); event.preventDefault(); }
  });
  const wanted = decodeURIComponent(location.hash.slice(1));
  const there = wanted && rows.find((row) => caseOf(row).case === wanted);
  if (there) open(there, false);
})();
