(() => {
  "use strict";
  const shown = (cell) => ((cell.querySelector("a") || cell).firstChild?.textContent || "").trim();
  const value = (cell) => {
    const found = shown(cell).replace(/−/g, "-").replace(/,/g, "").match(/^[+-]?\d+(\.\d+)?/);
    return found ? parseFloat(found[0]) : NaN;
  };

  function compare(numeric, sign) {
    return ([a], [b]) => {
      if (!numeric) return sign * shown(a).localeCompare(shown(b));
      const [x, y] = [value(a), value(b)];
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what is not measured comes last, either way
      return sign * (x - y);
    };
  }

  function sortable(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        const rows = [...body.rows];
        const ranked = rows.filter((row) => !row.classList.contains("context"));
        const pairs = ranked.map((row) => [row.cells[place], row]);
        const plain = ranked.some((row) => isNaN(value(row.cells[place])) && !/^(not |–|$)/.test(shown(row.cells[place])));
        pairs.sort(compare(!plain, sign));
        body.append(...pairs.map(([, row]) => row), ...rows.filter((row) => row.classList.contains("context")));
      });
    });
  }

  function filterable(table) {
    const rows = [...table.tBodies[0].rows].filter((row) => row.dataset.tags);
    const tags = new Map(rows.map((row) => [row, JSON.parse(row.dataset.tags)]));
    const names = [...new Set([...tags.values()].flatMap(Object.keys))];
    const bar = document.createElement("div");
    bar.className = "filters";
    const count = document.createElement("output");
    const picks = names.flatMap((name) => {
      const values = [...new Set([...tags.values()].map((one) => one[name]))].filter((one) => one !== undefined);
      if (values.length < 2) return [];
      const select = document.createElement("select");
      select.append(new Option("all", ""), ...values.map((one) => new Option(one, one)));
      const label = document.createElement("label");
      label.append(name + " ", select);
      bar.append(label);
      return [[name, select]];
    });
    if (!picks.length) return;
    const apply = () => {
      let left = 0;
      for (const [row, one] of tags) {
        row.hidden = picks.some(([name, select]) => select.value && one[name] !== select.value);
        left += !row.hidden;
      }
      count.textContent = left + " of " + rows.length + " shown; a column's title sorts by it";
    };
    picks.forEach(([, select]) => select.addEventListener("change", apply));
    bar.append(count);
    table.closest(".scroll").before(bar);
    apply();
  }

  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const inside = target.matches(".group") ? target.querySelector(":scope > details:only-of-type") : null;
    if (inside) inside.open = true;
    for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    target.scrollIntoView();
  }

  document.querySelectorAll("table.sortable").forEach((table) => {
    sortable(table);
    filterable(table);
  });
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();
})();
