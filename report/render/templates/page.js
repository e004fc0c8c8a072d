(() => {
  /** Open what an anchor lies in, and go there; a row of a long table is drawn first. */
  async function reveal() {
    const name = decodeURIComponent(location.hash.slice(1));
    let target = document.getElementById(name);
    if (name && (!target || target.matches(".long tr"))) target = (await tables.find(name)) || target;
    if (!target) return;
    const inside = target.matches(".group") ? target.querySelector(":scope > details:only-of-type") : null;
    if (inside) inside.open = true;
    for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    const box = target.closest(".scroll.long");
    if (box) box.scrollTop = target.offsetTop - target.closest("table").tHead.offsetHeight - 4;
    (box || target).scrollIntoView({ block: box ? "center" : "start" });
  }

  tables.start();
  plots.start();
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();
})();
