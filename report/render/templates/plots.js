// Pictures of points and paths, drawn with uPlot: zoom by dragging, values by pointing or with arrow keys, a legend that toggles.
const plots = (() => {
  const { element, unpacked } = tables;
  const PAPER = { "--ink": "#000", "--grid": "#ddd", "--paper": "#fff" };
  const every = [];
  let onPaper = false;
  const colour = (name) => (onPaper ? PAPER[name] : getComputedStyle(document.documentElement).getPropertyValue(name).trim());

  // Corners of each marker in a box from -1 to 1; "o" is round.
  const ring = (count, turn, inner) =>
    Array.from({ length: inner ? 2 * count : count }, (_, place, of = inner ? 2 * count : count) => {
      const angle = turn + (2 * Math.PI * place) / of;
      const far = inner && place % 2 ? inner : 1;
      return [far * Math.sin(angle), -far * Math.cos(angle)];
    });
  const cross = [[-0.35, -1], [0.35, -1], [0.35, -0.35], [1, -0.35], [1, 0.35], [0.35, 0.35], [0.35, 1], [-0.35, 1], [-0.35, 0.35], [-1, 0.35], [-1, -0.35], [-0.35, -0.35]];
  const turned = (shape, angle) => shape.map(([x, y]) => [x * Math.cos(angle) - y * Math.sin(angle), x * Math.sin(angle) + y * Math.cos(angle)]);
  const large = (shape) => shape.map(([x, y]) => [1.25 * x, 1.25 * y]); // a triangle fills less than a circle around it
  const SHAPES = {
    s: [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
    "^": large(ring(3, 0)), v: large(ring(3, Math.PI)), "<": large(ring(3, -Math.PI / 2)), ">": large(ring(3, Math.PI / 2)),
    D: ring(4, 0), d: ring(4, 0).map(([x, y]) => [0.6 * x, y]),
    P: cross, X: turned(cross, Math.PI / 4), p: ring(5, 0), h: ring(6, 0), "*": ring(5, 0, 0.42),
  };

  function shape(ctx, kind, x, y, size) {
    ctx.beginPath();
    if (!SHAPES[kind]) ctx.arc(x, y, size, 0, 2 * Math.PI);
    else SHAPES[kind].forEach(([a, b], place) => ctx[place ? "lineTo" : "moveTo"](x + size * a, y + size * b));
    ctx.closePath();
  }

  /** Return the lowest and highest of values, with room beside them. */
  function reach(values, share) {
    const known = values.filter((value) => value !== null && isFinite(value));
    if (!known.length) return [0, 1];
    const low = Math.min(...known), high = Math.max(...known);
    const room = (high - low || Math.abs(high) || 1) * share;
    return [low - room, high + room];
  }

  function made(box, state) {
    const data = JSON.parse(JSON.stringify(box.data));
    const place = box.querySelector(".canvas");
    const paths = data.paths || [], marks = data.marks || [], front = data.front || [];
    const shown = (method, lambda) => !state.off.has("m" + method) && !state.off.has("l" + data.lambdas[lambda][2]);
    const named = (method, lambda) => data.methods[method][0] + (data.lambdas[lambda][0] === "no λ" ? "" : " at " + data.lambdas[lambda][0]);

    // What can be pointed at: [x, y, words], of what is shown.
    const written = (value, axis) => value.toFixed(axis.digits).replace("-", "−");
    function spots() {
      const [across, up] = data.axes;
      const line = (axis, value, sd) => `${axis.name}: ${written(value, axis)}${sd === null || sd === undefined ? "" : " ± " + written(sd, axis)} ${axis.unit}`;
      const found = [];
      for (const [method, lambda, x, y, sx, sy, seeds] of data.points) {
        if (!shown(method, lambda)) continue;
        const name = named(method, lambda);
        const mean = seeds.length > 1 ? `mean of ${seeds.length} seeds, ± sd` : seeds.length ? `seed ${seeds[0][0]}` : "mean over seeds, ± sd";
        found.push([x, y, `${name}\n${mean}\n${line(across, x, sx)}\n${line(up, y, sy)}`]);
        if (state.seeds && seeds.length > 1)
          for (const [seed, a, b] of seeds) found.push([a, b, `${name}\nseed ${seed}\n${line(across, a)}\n${line(up, b)}`]);
      }
      for (const [method, lambda, seed, steps, xs, ys] of paths) {
        if (!shown(method, lambda) || (seed !== null && !state.seeds)) continue;
        const who = seed === null ? "mean over seeds" : "seed " + seed;
        steps.forEach((step, at) => found.push([xs[at], ys[at], `${named(method, lambda)}\n${who}, step ${step}\n${line(across, xs[at])}\n${line(up, ys[at])}`]));
      }
      for (const [x, y, words] of marks) found.push([x, y, `${words}\n${line(across, x)}\n${line(up, y)}`]);
      return found;
    }

    const far = (at, sd) => data.points.flatMap((one) => [one[at] - (one[sd] || 0), one[at] + (one[sd] || 0)]);
    const wide = (at) => [
      ...far(at + 2, at + 4),
      ...data.points.flatMap((one) => one[6].map((seed) => seed[at + 1])),
      ...paths.flatMap((one) => one[at + 4]),
      ...marks.filter((one) => one[3] !== "" || paths.length).map((one) => one[at]),
    ];
    const home = { x: reach(wide(0), 0.07), y: reach([...wide(1), ...("level" in data ? [data.level] : [])], 0.09) };

    function draw(u) {
      const { ctx, bbox } = u, px = uPlot.pxRatio;
      const X = (value) => u.valToPos(value, "x", true), Y = (value) => u.valToPos(value, "y", true);
      const line = (points, style, width, dash, alpha) => {
        ctx.globalAlpha = alpha;
        ctx.strokeStyle = style;
        ctx.lineWidth = width * px;
        ctx.setLineDash(dash.map((one) => one * px));
        ctx.beginPath();
        points.forEach(([x, y], at) => ctx[at ? "lineTo" : "moveTo"](X(x), Y(y)));
        ctx.stroke();
        ctx.setLineDash([]);
        ctx.globalAlpha = 1;
      };
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      const ink = colour("--ink");
      if ("level" in data) line([[u.scales.x.min, data.level], [u.scales.x.max, data.level]], ink, 0.8, [4, 2], 1);
      for (const [method, lambda, seed, , xs, ys] of paths) {
        if (!shown(method, lambda) || (seed !== null && !state.seeds)) continue;
        const [, shade, dash] = data.methods[method];
        line(xs.map((x, at) => [x, ys[at]]), shade, seed === null ? 1.4 : 0.7, seed === null ? dash : [], seed === null ? 0.85 : 0.35);
      }
      if (front.length) line(front, ink, 0.9, [4, 3], 0.55);
      for (const [method, lambda, x, y, sx, sy, seeds] of data.points) {
        if (!shown(method, lambda)) continue;
        const shade = data.methods[method][1];
        if (!paths.length && sx !== null) line([[x - sx, y], [x + sx, y]], shade, 0.9, [], 0.6);
        if (!paths.length && sy !== null) line([[x, y - sy], [x, y + sy]], shade, 0.9, [], 0.6);
        if (!state.seeds || seeds.length < 2) continue;
        ctx.fillStyle = shade;
        ctx.globalAlpha = 0.55;
        for (const [, a, b] of seeds) shape(ctx, data.lambdas[lambda][1], X(a), Y(b), 2.4 * px), ctx.fill();
        ctx.globalAlpha = 1;
      }
      for (const [method, lambda, x, y] of data.points) {
        if (!shown(method, lambda)) continue;
        shape(ctx, data.lambdas[lambda][1], X(x), Y(y), 5 * px);
        ctx.fillStyle = data.methods[method][1];
        ctx.fill();
        ctx.strokeStyle = colour("--paper");
        ctx.lineWidth = 0.8 * px;
        ctx.stroke();
      }
      ctx.fillStyle = ctx.strokeStyle = ink;
      ctx.font = `${12 * px}px ${getComputedStyle(document.body).fontFamily}`;
      for (const [x, y, words, kind] of marks) {
        if (kind) {
          shape(ctx, kind, X(x), Y(y), (kind === "*" ? 8 : 5.5) * px);
          ctx.lineWidth = px;
          kind === "ring" ? ctx.stroke() : ctx.fill();
        }
        const length = ctx.measureText(words).width / 2;
        ctx.textAlign = "center";
        const fits = Y(y) + 26 * px < bbox.top + bbox.height;
        const below = kind ? fits : Y(y) - 20 * px < bbox.top;
        ctx.textBaseline = below ? "top" : "bottom";
        const at = Math.max(bbox.left + length + 3 * px, Math.min(bbox.left + bbox.width - length - 3 * px, X(x)));
        ctx.fillText(words, at, Y(y) + (below ? 10 : kind ? -10 : -7) * px);
      }
      ctx.restore();
    }

    const axis = ({ label }, y) => ({
      label, labelSize: 20, labelGap: 2, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
      stroke: () => colour("--ink"), grid: { stroke: () => colour("--grid"), width: 0.7 }, ticks: { show: false },
      space: y ? 34 : 64,
      size: y ? (u, values) => 12 + 7 * Math.max(3, ...(values || []).map((one) => String(one).length)) : 28,
    });
    const size = () => {
      if (onPaper) return { width: 384, height: 288 }; // the style sheet makes it smaller, letters and all
      const width = Math.max(240, Math.floor(place.clientWidth || 560));
      return { width, height: Math.floor(Math.min(place.clientHeight || 0.75 * width, 0.8 * width)) };
    };
    const dot = element("div", "dot"), tip = element("output", "tip");
    dot.hidden = tip.hidden = true;
    const u = new uPlot(
      {
        ...size(), mode: 2, legend: { show: false },
        cursor: { drag: { x: true, y: true, uni: 16 }, points: { show: false }, x: false, y: false, bind: { dblclick: () => () => void reset() } },
        scales: { x: { time: false, range: home.x }, y: { range: home.y } },
        axes: data.axes.map(axis),
        series: [null, { facets: [{ scale: "x", auto: true }, { scale: "y", auto: true }], paths: () => null }],
        hooks: { draw: [draw], setCursor: [point], setSelect: [() => setTimeout(() => state.changed())] },
      },
      [null, [home.x, home.y]],
      place,
    );
    u.over.append(dot, tip);

    function tell(spot) {
      dot.hidden = tip.hidden = !spot;
      if (!spot) return;
      const [x, y, words] = spot;
      const left = u.valToPos(x, "x"), top = u.valToPos(y, "y");
      dot.style.left = left + "px";
      dot.style.top = top + "px";
      tip.textContent = words;
      tip.style.left = tip.style.right = tip.style.top = tip.style.bottom = "auto";
      if (left > u.over.clientWidth / 2) tip.style.right = u.over.clientWidth - left + 12 + "px";
      else tip.style.left = left + 12 + "px";
      if (top > u.over.clientHeight / 2) tip.style.bottom = u.over.clientHeight - top + 8 + "px";
      else tip.style.top = top + 8 + "px";
    }

    function point() {
      const { left, top } = u.cursor;
      if (left < 0) return tell(null);
      let best = null, least = 20;
      for (const spot of spots()) {
        const away = Math.hypot(u.valToPos(spot[0], "x") - left, u.valToPos(spot[1], "y") - top);
        if (away < least) [best, least] = [spot, away];
      }
      tell(best);
    }

    let walked = -1;
    place.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") return reset(), tell(null);
      if (!step) return;
      event.preventDefault();
      const found = spots();
      walked = (walked + step + found.length) % found.length;
      tell(found[walked]);
    });
    place.addEventListener("blur", () => tell(null));

    function reset() {
      u.batch(() => Object.entries(home).forEach(([key, [min, max]]) => u.setScale(key, { min, max })));
      state.changed();
    }
    const zoomed = () => ["x", "y"].some((key) => Math.abs(u.scales[key].min - home[key][0]) + Math.abs(u.scales[key].max - home[key][1]) > 1e-9 * (home[key][1] - home[key][0]));
    new ResizeObserver(() => !onPaper && place.clientWidth && Math.abs(place.clientWidth - u.width) > 1 && u.setSize(size())).observe(place);
    return { redraw: () => u.redraw(false, true), reset, zoomed, fit: () => u.setSize(size()), u, spots };
  }

  function toggle(words, pressed, act) {
    const button = element("button", "", ...words);
    button.type = "button";
    button.setAttribute("aria-pressed", String(pressed));
    button.addEventListener("click", () => {
      const now = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(now));
      act(now);
    });
    return button;
  }

  function group(figure) {
    const boxes = [...figure.querySelectorAll(".plot")];
    const state = { off: new Set(), seeds: true, changed: () => {} };
    const charts = () => boxes.map((box) => box.chart).filter(Boolean);
    const redraw = () => charts().forEach((one) => one.redraw());
    const legend = figure.querySelector(".legend");
    for (const item of legend.querySelectorAll("li")) {
      const key = item.dataset.method !== undefined ? "m" + item.dataset.method : "l" + item.dataset.shape;
      item.append(toggle([...item.childNodes], true, (on) => (state.off[on ? "delete" : "add"](key), redraw())));
    }
    const back = element("button", "plain", "whole picture");
    back.type = "button";
    back.addEventListener("click", () => charts().forEach((one) => one.reset()));
    const whole = element("li", "", back);
    whole.hidden = true;
    state.changed = () => (whole.hidden = !charts().some((one) => one.zoomed()));
    const seeds = toggle(["every seed"], true, (on) => ((state.seeds = on), redraw()));
    seeds.className = "plain";
    const several = element("li", "", seeds);
    legend.append(several, whole);

    async function load(box) {
      if (box.data) return;
      box.data = await unpacked(box.querySelector(":scope > template"));
      box.classList.add("ready");
      // Hundreds of runs hide their own means: those who want to see them ask for it.
      const runs = box.data.points.reduce((sum, one) => sum + one[6].length, 0);
      if (runs > 60 && state.seeds && !box.chart) (state.seeds = false), seeds.setAttribute("aria-pressed", "false");
      if (runs <= box.data.points.length) several.hidden = true;
    }
    async function draw(box) {
      await load(box);
      box.chart ||= made(box, state);
    }
    boxes.forEach((box) => {
      const near = new IntersectionObserver((seen) => {
        if (!seen.some((one) => one.isIntersecting)) return;
        near.disconnect();
        draw(box);
      }, { rootMargin: "300px" });
      near.observe(box);
      every.push({ box, load: () => load(box), now: () => box.data && (box.chart ||= made(box, state)) });
    });
  }

  return {
    /** Draw every plot of the page once it is near. */
    start() {
      document.querySelectorAll("figure.plots").forEach(group);
      if (!every.length) return;
      const again = (paper) => () => {
        onPaper = paper;
        every.forEach((one) => {
          if (paper) one.now(); // what was not near yet
          one.box.chart?.fit();
          one.box.chart?.redraw();
        });
      };
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again(false));
      addEventListener("beforeprint", again(true));
      addEventListener("afterprint", again(false));
      addEventListener("load", () => setTimeout(() => every.forEach((one) => one.load()), 50));
    },
  };
})();
