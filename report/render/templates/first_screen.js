(() => {
  "use strict";
  const RECORDS = new Set(["answers", "choices", "runs", "settings"]); // long, and in the files beside the page

  function pickGoal() {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const pick = wanted.startsWith("goal-") && document.getElementById(wanted.replace("goal-", "pick-"));
    if (pick && !pick.disabled) pick.checked = true;
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.part:not([open])")].filter((part) => !RECORDS.has(part.id));
    opened.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));
  addEventListener("hashchange", pickGoal);
  pickGoal();
})();
