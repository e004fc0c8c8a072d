"use strict";
// Tables: sorting, filters, and rows of long ones drawn as they are scrolled to.
const tables = (() => {
  const CHUNK = 60;
  const all = [];

  function element(name, className, ...inside) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...inside);
    return made;
  }

  // ---- rows: of a short table its elements, of a long one what its template holds ----

  const plainText = (cell) => ((cell.querySelector("a") || cell).firstChild?.textContent || "").trim();

  function fromElements(table) {
    return [...table.tBodies[0].rows].map((row) => ({
      text: (place) => plainText(row.cells[place]),
      whole: () => row.textContent,
      context: row.classList.contains("context"),
      tags: row.dataset.tags ? JSON.parse(row.dataset.tags) : null,
      anchor: row.id,
      draw: () => row,
    }));
  }

  async function unpacked(template) {
    const bytes = Uint8Array.from(atob(template.content.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  function drawnCell(cell, place, className, rowLink) {
    const [text, link, note, missing] = typeof cell === "string" ? [cell, "", "", 0] : cell;
    const made = document.createElement(place ? "td" : "th");
    if (!place) made.scope = "row";
    if (className || missing) made.className = className + (missing ? " missing" : "");
    const leads = text || note ? link || rowLink : "";
    const inside = leads ? element("a") : made;
    inside.append(text);
    if (note) inside.append(" ", element("small", "", note));
    if (leads) {
      inside.href = /[/.]/.test(leads) ? leads : "#" + leads;
      if (place && !link.includes("/")) inside.tabIndex = -1;
      made.append(inside);
    }
    return made;
  }

  function drawnRow(columns, [cells, kind, , anchor, more]) {
    const row = element("tr", kind || "");
    if (anchor) row.id = anchor;
    const rowLink = typeof cells[0] === "string" ? "" : cells[0][1];
    row.append(...cells.map((cell, place) => drawnCell(cell, place, columns[place], place ? rowLink : "")));
    if (more) {
      const button = element("button", "more");
      button.type = "button";
      button.ariaLabel = "Details of " + row.cells[0].textContent;
      button.ariaExpanded = "false";
      button.addEventListener("click", () => {
        const open = button.ariaExpanded === "true";
        button.ariaExpanded = String(!open);
        if (open) return row.nextElementSibling.remove();
        const cell = element("td", "", element("pre", "", more));
        cell.colSpan = cells.length;
        row.after(element("tr", "opened", cell));
      });
      row.cells[0].prepend(button);
    }
    return row;
  }

  function fromPacked({ columns, filters, rows }) {
    return rows.map((entry) => {
      const [cells, kind, tags, anchor] = entry;
      const text = (place) => (typeof cells[place] === "string" ? cells[place] : cells[place][0]);
      let drawn = null;
      return {
        text,
        whole: () => cells.map((cell, place) => text(place) + " " + (cell[2] || "")).join(" "),
        context: kind === "context",
        tags: tags ? Object.fromEntries(filters.map((name, place) => [name, tags[place] ?? undefined])) : null,
        anchor,
        draw: () => (drawn ||= drawnRow(columns, entry)),
      };
    });
  }

  // ---- sorting ----

  const value = (text) => {
    const found = text.replace(/−/g, "-").replace(/,/g, "").match(/^[+-]?\d+(\.\d+)?/);
    return found ? parseFloat(found[0]) : NaN;
  };

  function sorted(rows, place, sign) {
    const ranked = rows.filter((row) => !row.context).map((row) => [row.text(place), row]);
    const words = ranked.some(([text]) => isNaN(value(text)) && !/^(missing|not |–|$)/.test(text));
    ranked.sort(([a], [b]) => {
      if (words) return sign * a.localeCompare(b);
      const [x, y] = [value(a), value(b)];
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is missing comes last, either way
      return sign * (x - y);
    });
    return [...ranked.map(([, row]) => row), ...rows.filter((row) => row.context)];
  }

  // ---- a table ----

  function made(table) {
    const box = table.closest(".scroll");
    const template = box.querySelector(":scope > template");
    const body = table.tBodies[0];
    const state = { rows: null, order: [], drawn: 0, picks: [], words: "", count: null };
    const end = element("tr", "end");
    const watch = template && new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && grow(), {
      root: box,
      rootMargin: "0px 0px 600px",
    });

    const fits = (row) => {
      if (state.words && !row.whole().toLowerCase().includes(state.words)) return false;
      return !row.tags || state.picks.every(([name, select]) => !select.value || row.tags[name] === select.value);
    };

    function show() {
      const kept = state.order.filter(fits);
      state.kept = kept;
      state.drawn = 0;
      body.replaceChildren();
      if (template) box.scrollTop = 0;
      grow(template ? CHUNK : kept.length);
      if (!state.count) return;
      const counted = state.rows.filter((row) => !row.context);
      const left = kept.filter((row) => !row.context).length;
      const shown = left < counted.length || state.picks.length ? `${left} of ${counted.length} shown` : `${left} rows`;
      state.count.textContent = shown + (table.matches(".sortable") ? "; click a header to sort" : "");
    }

    function grow(count = CHUNK) {
      const next = state.kept.slice(state.drawn, state.drawn + count);
      state.drawn += next.length;
      end.remove();
      body.append(...next.map((row) => row.draw()));
      if (!template || state.drawn >= state.kept.length) return;
      body.append(end);
      watch.unobserve(end); // a new look, so that what is still in view is told again
      watch.observe(end);
    }

    function sortable() {
      const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
      heads.forEach((head, place) => {
        const button = element("button", "", ...head.childNodes);
        button.type = "button";
        head.append(button);
        button.addEventListener("click", async () => {
          if (template) await ready();
          const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
          heads.forEach((other) => other.removeAttribute("aria-sort"));
          head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
          state.order = sorted(state.order, place, sign);
          show();
        });
      });
    }

    function filterable() {
      const tagged = state.rows.map((row) => row.tags).filter(Boolean);
      const bar = element("div", "filters");
      for (const name of new Set(tagged.flatMap(Object.keys))) {
        const values = [...new Set(tagged.map((one) => one[name]))].filter((one) => one !== undefined);
        if (values.length < 2) continue;
        const select = document.createElement("select");
        select.append(new Option("all", ""), ...values.map((one) => new Option(one, one)));
        select.addEventListener("change", show);
        bar.append(element("label", "", name + " ", select));
        state.picks.push([name, select]);
      }
      if (template || box.querySelector("table.searchable")) {
        const find = document.createElement("input");
        find.type = "search";
        find.addEventListener("input", () => {
          state.words = find.value.trim().toLowerCase();
          show();
        });
        bar.append(element("label", "", "find ", find));
      }
      if (!bar.childElementCount) return;
      state.count = element("output");
      bar.append(state.count);
      box.before(bar);
    }

    function take(rows) {
      state.rows = state.order = rows;
      filterable();
      if (state.count) show();
    }

    let begun = null;
    const ready = () =>
      (begun ||= (async () => {
        if (!template) return;
        take(fromPacked(await unpacked(template)));
        template.remove();
        box.classList.add("drawn");
      })());

    async function find(anchor) {
      await ready();
      const row = state.rows.find((one) => one.anchor === anchor);
      if (!row) return null;
      if (!fits(row)) {
        state.picks.forEach(([, select]) => (select.value = ""));
        state.words = "";
        const search = box.previousElementSibling?.querySelector("input");
        if (search) search.value = "";
        show();
      }
      const place = state.kept.indexOf(row);
      if (place >= state.drawn) grow(place + 1 + CHUNK - state.drawn);
      body.querySelectorAll(".found").forEach((one) => one.classList.remove("found"));
      row.draw().classList.add("found");
      return row.draw();
    }

    if (table.matches(".sortable")) sortable();
    if (!template) {
      state.kept = [];
      const rows = table.matches(".sortable") ? fromElements(table) : [];
      if (rows.length) take(rows);
    } else if ("IntersectionObserver" in window) {
      const near = new IntersectionObserver((seen) => {
        if (!seen.some((one) => one.isIntersecting)) return;
        near.disconnect();
        ready();
      }, { rootMargin: "400px" });
      near.observe(box);
    }
    return { template, find };
  }

  return {
    element,
    unpacked,
    /** Make every table of the page sort, filter and grow. */
    start() {
      document.querySelectorAll(".scroll > table").forEach((table) => {
        if (table.matches(".sortable") || table.parentElement.querySelector(":scope > template")) all.push(made(table));
      });
    },
    /** Return the row of a long table that an anchor names, drawn; null where no table has it. */
    async find(anchor) {
      for (const one of all) {
        const row = one.template && (await one.find(anchor));
        if (row) return row;
      }
      return null;
    },
  };
})();
