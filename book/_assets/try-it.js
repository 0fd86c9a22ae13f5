// The student in the page: what a reader paints is answered by a one-step student, here, without a server.
//
// First the pure part (noise, corruptions, networks), which the tests call as `window.tryIt`; then what is seen.
// Images are planar Float32Arrays of 3 x 64 x 64 numbers in [-1, 1], as everywhere in the book.
// Nothing is fetched: a page that was opened from a disk may not, but it may load scripts.  So networks, runtime and
// pictures lie beside this file as scripts that hold their bytes, gzipped, in base64.  They load when they are needed.
(() => {
  "use strict";

  const SIDE = 64;
  const PIXELS = SIDE * SIDE;
  const HERE = document.currentScript.src.replace(/[^/]*$/, "");
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // ---- Noise -------------------------------------------------------------------------------------------------------

  // Standard normals that a seed repeats: Marsaglia's xorshift and the method of Box and Muller.
  function normals(seed, count) {
    let state = Math.imul(seed + 1, 0x9e3779b1) | 1; // never 0, where the generator would stay
    const uniform = () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) / 2 ** 32;
    };
    for (let i = 0; i < 8; i++) uniform(); // neighbouring seeds begin alike
    return Float32Array.from({ length: count }, () => {
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      return radius * Math.cos(2 * Math.PI * uniform());
    });
  }

  // ---- What the world does to an image -----------------------------------------------------------------------------

  const toByte = (value) => Math.round(clamp((value + 1) * 127.5, 0, 255));

  // A hole holds noise; elsewhere the image is known.
  function withHole(x0, mask, noise) {
    return x0.map((value, i) => (mask[i % PIXELS] ? noise[i] : value));
  }

  // Edges of the brightness, dark on white: `ibmd_lite.data.Sketch`, step by step.
  function sketch(x0, { sigma = 0.7, strength = 4 } = {}) {
    const at = (plane, row, column) => plane[clamp(row, 0, SIDE - 1) * SIDE + clamp(column, 0, SIDE - 1)];
    const everywhere = (value) =>
      Float32Array.from({ length: PIXELS }, (_, i) => value(Math.floor(i / SIDE), i % SIDE));
    const reach = Math.floor(4 * sigma + 0.5);
    const steps = Array.from({ length: 2 * reach + 1 }, (_, i) => i - reach);
    const weights = steps.map((step) => Math.exp(-0.5 * (step / sigma) ** 2));
    const total = weights.reduce((sum, weight) => sum + weight);
    const blurred = (value) => steps.reduce((sum, step, i) => sum + (weights[i] / total) * value(step), 0);

    let plane = everywhere((row, column) => {
      const i = row * SIDE + column;
      return 0.299 * x0[i] + 0.587 * x0[PIXELS + i] + 0.114 * x0[2 * PIXELS + i];
    });
    const upright = plane;
    plane = everywhere((row, column) => blurred((step) => at(upright, row, column + step)));
    const level = plane;
    plane = everywhere((row, column) => blurred((step) => at(level, row + step, column)));
    const slope = (value) => (value(-1, 1) + 2 * value(0, 1) + value(1, 1) - value(-1, -1) - 2 * value(0, -1) - value(1, -1)) / 8;
    return everywhere((row, column) => {
      const across = slope((along, ahead) => at(plane, row + along, column + ahead));
      const down = slope((along, ahead) => at(plane, row + ahead, column + along));
      return 1 - 2 * Math.tanh(strength * Math.hypot(across, down));
    });
  }

  // JPEG as Pillow's libjpeg writes and reads it.  A browser's own encoder has another scale of quality, so this goes the
  // way itself: colours at half the resolution, cosine transform of 8 x 8, division by tables, and back.  What happens to
  // the numbers on the way into the file and out of it is lossless, and left out.
  const LUMINANCE = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87,
    80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92,
    95, 98, 112, 100, 103, 99,
  ];
  const CHROMINANCE = Array(64).fill(99);
  [17, 18, 24, 47].forEach((value, i) => (CHROMINANCE[i] = value));
  [18, 21, 26, 66].forEach((value, i) => (CHROMINANCE[8 + i] = value));
  [24, 26, 56].forEach((value, i) => (CHROMINANCE[16 + i] = value));
  [47, 66].forEach((value, i) => (CHROMINANCE[24 + i] = value));
  // Cosines in 13 bits: row by row the left half of each wave; the right half is its mirror image, in odd rows negative.
  // A few are one off from the rounded cosine, because libjpeg makes them of sums of rounded factors.
  const WAVES = [
    [8192, 8192, 8192, 8192],
    [11363, 9633, 6437, 2260],
    [10703, 4433, -4433, -10703],
    [9633, -2259, -11362, -6436],
    [8192, -8192, -8192, 8192],
    [6437, -11362, 2261, 9633],
    [4433, -10704, 10704, -4433],
    [2260, -6436, 9633, -11363],
  ].flatMap((half, order) => [...half, ...[...half].reverse().map((value) => (order % 2 ? -value : value))]);

  // The standard tables are for quality 50.
  function divisors(base, quality) {
    const scale = quality < 50 ? Math.floor(5000 / quality) : 200 - 2 * quality;
    return base.map((value) => clamp(Math.floor((value * scale + 50) / 100), 1, 255));
  }

  // One block of samples through the table.  libjpeg computes in whole numbers and rounds after rows and after columns, and
  // so does this: else one coefficient in a hundred would fall on the other side of a rounding.
  function throughTable(block, table) {
    const transformed = (term, bits) => {
      const out = new Float64Array(64);
      for (let i = 0; i < 64; i++) {
        let sum = 0;
        for (let k = 0; k < 8; k++) sum += term(i >> 3, i & 7, k);
        out[i] = Math.round(sum / 2 ** bits);
      }
      return out;
    };
    const rows = transformed((row, order, k) => WAVES[8 * order + k] * block[8 * row + k], 11);
    const found = transformed((order, column, k) => WAVES[8 * order + k] * rows[8 * k + column], 15);
    const kept = found.map((value, i) => {
      const step = 8 * table[i];
      return Math.sign(value) * Math.floor((Math.abs(value) + step / 2) / step) * table[i];
    });
    const columns = transformed((row, column, k) => WAVES[8 * k + row] * kept[8 * k + column], 11);
    return transformed((row, column, k) => WAVES[8 * k + column] * columns[8 * row + k], 18);
  }

  function planeThroughTable(plane, side, table) {
    const out = new Float64Array(side * side);
    for (let top = 0; top < side; top += 8) {
      for (let left = 0; left < side; left += 8) {
        const place = (i) => (top + (i >> 3)) * side + left + (i & 7);
        const block = Float64Array.from({ length: 64 }, (_, i) => plane[place(i)] - 128);
        throughTable(block, table).forEach((value, i) => (out[place(i)] = clamp(value + 128, 0, 255)));
      }
    }
    return out;
  }

  function jpeg(x0, quality) {
    const [red, green, blue] = [0, 1, 2].map((colour) => x0.subarray(colour * PIXELS, (colour + 1) * PIXELS).map(toByte));
    const mixed = (r, g, b, offset) =>
      Float64Array.from({ length: PIXELS }, (_, i) => Math.floor((r * red[i] + g * green[i] + b * blue[i] + offset) / 65536));
    const middle = 128 * 65536 + 32767;
    const colours = [mixed(-11059, -21709, 32768, middle), mixed(32768, -27439, -5329, middle)];

    const half = SIDE / 2;
    const table = divisors(CHROMINANCE, quality);
    const [cb, cr] = colours.map((plane) => {
      const small = Float64Array.from({ length: half * half }, (_, i) => {
        const [column, first] = [i % half, 2 * Math.floor(i / half) * SIDE + 2 * (i % half)];
        const four = plane[first] + plane[first + 1] + plane[first + SIDE] + plane[first + SIDE + 1];
        return (four + 1 + (column % 2)) >> 2; // halves go up and down in turns
      });
      return enlarged(planeThroughTable(small, half, table), half);
    });
    const y = planeThroughTable(mixed(19595, 38470, 7471, 32768), SIDE, divisors(LUMINANCE, quality));

    const out = new Float32Array(3 * PIXELS);
    for (let i = 0; i < PIXELS; i++) {
      const [u, v] = [cb[i] - 128, cr[i] - 128];
      const shifts = [91881 * v, -22554 * u - 46802 * v, 116130 * u];
      shifts.forEach((shift, colour) => {
        out[colour * PIXELS + i] = clamp(y[i] + Math.floor((shift + 32768) / 65536), 0, 255) / 127.5 - 1;
      });
    }
    return out;
  }

  // Twice the size: three parts of the nearest sample and one of the next, along both axes.
  function enlarged(plane, side) {
    return Float64Array.from({ length: 4 * side * side }, (_, i) => {
      const [row, column] = [Math.floor(i / (2 * side)), i % (2 * side)];
      const away = (place) => clamp((place >> 1) + (place % 2 ? 1 : -1), 0, side - 1);
      const mixed = (x) => 3 * plane[(row >> 1) * side + x] + plane[away(row) * side + x];
      return (3 * mixed(column >> 1) + mixed(away(column)) + (column % 2 ? 7 : 8)) >> 4;
    });
  }

  // ---- Networks ----------------------------------------------------------------------------------------------------

  const scripts = new Map();

  // A script that lies beside this one, once.
  function script(path) {
    if (!scripts.has(path)) {
      scripts.set(
        path,
        new Promise((resolve, reject) => {
          const element = document.createElement("script");
          element.src = HERE + path;
          element.onload = resolve;
          element.onerror = () => {
            scripts.delete(path); // so that it can be tried again
            reject(new Error(`${path} could not be loaded`));
          };
          document.head.append(element);
        }),
      );
    }
    return scripts.get(path);
  }

  // The bytes that a script holds.
  async function bytes(path) {
    await script(`${path}.js`);
    const packed = Uint8Array.from(atob(window.heldFiles[path.replace(/.*\//, "")]), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  const about = async () => JSON.parse(new TextDecoder().decode(await bytes("students/about.json")));

  let runtime = null;

  // ONNX Runtime: its WebAssembly, and the module that starts it, which a page from a disk may import from a blob only.
  function startRuntime() {
    runtime ??= (async () => {
      const folder = "vendor/onnxruntime/";
      const [wasm, starter] = await Promise.all([
        bytes(`${folder}ort-wasm-simd-threaded.wasm`),
        bytes(`${folder}ort-wasm-simd-threaded.mjs`),
        script(`${folder}ort.wasm.min.js`),
      ]);
      const { env } = window.ort;
      env.wasm.numThreads = 1; // more would need headers that only a server can send
      env.wasm.wasmBinary = wasm;
      env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([starter], { type: "text/javascript" })) };
      return window.ort;
    })();
    runtime.catch(() => (runtime = null));
    return runtime;
  }

  const sessions = new Map();

  // A network by its file's name, such as "paint-student".
  function network(name) {
    if (!sessions.has(name)) {
      const made = (async () => {
        const [ort, file] = await Promise.all([startRuntime(), bytes(`students/${name}.onnx`)]);
        return ort.InferenceSession.create(file);
      })();
      made.catch(() => sessions.delete(name));
      sessions.set(name, made);
    }
    return sessions.get(name);
  }

  // One network call.  A file names its inputs, and gets those that it names.
  async function call(name, inputs) {
    const session = await network(name);
    const feeds = {};
    for (const key of session.inputNames) {
      const dims = inputs[key].length === 1 ? [1] : [1, inputs[key].length / PIXELS, SIDE, SIDE];
      feeds[key] = new window.ort.Tensor("float32", inputs[key], dims);
    }
    const answers = await session.run(feeds);
    return answers[session.outputNames[0]].data;
  }

  // x0 in one call.  z: the student's own noise, where it has any; mask: 1 in the hole.
  const student = (task, source) => call(`${task}-student`, source);

  // The teacher's walk from T down to 0 with the Markov posterior (eq:posterior), one state after every call: `sample` of
  // the package.  steps: rows (t, weight of xt, weight of x0_hat, std).  noise(step): normals for that step.
  async function* walk(task, { xT, mask }, steps, noise) {
    let xt = xT;
    for (const [step, [t, fromXt, fromX0, std]] of steps.entries()) {
      const guess = await call(`${task}-teacher`, { xt, t: Float32Array.of(t), xT });
      const draw = std > 0 ? noise(step) : null;
      xt = xt.map((value, i) => {
        const x0 = mask && !mask[i % PIXELS] ? xT[i] : guess[i]; // what is known stays
        return fromXt * value + fromX0 * x0 + (draw ? std * draw[i] : 0);
      });
      yield xt;
    }
  }

  window.tryIt = { normals, sketch, jpeg, about, call, student, walk };

  // ---- The page ----------------------------------------------------------------------------------------------------

  const TOOLS = {
    paint: `
      <label>Brush <input type="range" name="brush" min="1" max="12" value="6"> <output>6</output> pixels</label>
      <button type="button" data-do="middle">Hole in the middle</button>
      <button type="button" data-do="reset">No hole</button>`,
    jpeg: `
      <label>Quality <input type="range" name="quality" min="5" max="40" value="8"> <output>8</output></label>`,
    sketch: `
      <label><input type="radio" name="pen" value="draw" checked> Pencil</label>
      <label><input type="radio" name="pen" value="erase"> Eraser</label>
      <button type="button" data-do="reset">The photograph's sketch</button>
      <button type="button" data-do="blank">White paper</button>`,
  };
  const HELP = {
    paint: "Paint a hole with mouse, finger or pen. With the keyboard: arrow keys move the brush, with Shift in steps of eight; space paints.",
    jpeg: "Choose a quality: the photograph is written as a JPEG file and read again.",
    sketch: "Draw and erase with mouse, finger or pen. With the keyboard: arrow keys move the pencil, with Shift in steps of eight; space draws.",
  };
  const PANELS = { given: "What the networks get", student: "Student, one call", teacher: "Teacher, 100 calls", clean: "The photograph" };

  const skeleton = (pictures) => `
    <form>
      <fieldset class="try-it-tasks">
        <legend>Task</legend>
        <label><input type="radio" name="task" value="paint" checked> Paint a hole</label>
        <label><input type="radio" name="task" value="jpeg"> Compress it</label>
        <label><input type="radio" name="task" value="sketch"> Draw a sketch</label>
      </fieldset>
      <div class="try-it-row">
        <label>Photograph <select name="picture">
          ${pictures.map((name, i) => `<option value="${i}">${name}</option>`).join("")}
          <option value="own" hidden>yours</option>
        </select></label>
        <label>or one of yours <input type="file" accept="image/*"></label>
      </div>
      <div class="try-it-row" data-tools></div>
      <p class="try-it-help" id="try-it-help"></p>
    </form>
    <div class="try-it-row">
      <button type="button" data-do="start" class="try-it-main">Start the student</button>
      <button type="button" data-do="again" hidden>Again, with other noise</button>
      <button type="button" data-do="walk" hidden>Let the teacher walk</button>
      <button type="button" data-do="stop" hidden>Stop</button>
    </div>
    <p role="status" aria-live="polite" class="try-it-status"></p>
    <div class="try-it-panels">
      ${Object.entries(PANELS)
        .map(
          ([name, title]) => `
        <figure data-panel="${name}">
          <div class="try-it-frame"><canvas width="${SIDE}" height="${SIDE}" role="img" aria-label="${title}"></canvas></div>
          <figcaption>${title}<span data-time></span></figcaption>
        </figure>`,
        )
        .join("")}
    </div>`;

  // Colours of 64 x 64 pixels, cut from the middle of whatever was drawn.
  function pixelsOf(image, x = 0, y = 0, size = SIDE) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(image, x, y, size, size, 0, 0, SIDE, SIDE);
    const { data } = context.getImageData(0, 0, SIDE, SIDE);
    return Float32Array.from({ length: 3 * PIXELS }, (_, i) => data[4 * (i % PIXELS) + Math.floor(i / PIXELS)] / 127.5 - 1);
  }

  function show(canvas, image) {
    const context = canvas.getContext("2d");
    const data = context.createImageData(SIDE, SIDE);
    for (let i = 0; i < PIXELS; i++) {
      for (let colour = 0; colour < 3; colour++) data.data[4 * i + colour] = toByte(image[colour * PIXELS + i]);
      data.data[4 * i + 3] = 255;
    }
    context.putImageData(data, 0, 0);
  }

  const grey = (plane) => Float32Array.from({ length: 3 * PIXELS }, (_, i) => plane[i % PIXELS]);
  const seconds = (milliseconds) => (milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`);
  const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

  async function furnish(root) {
    if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") {
      root.textContent = "This browser is too old to run a network: it lacks WebAssembly or DecompressionStream. The picture below shows stored answers.";
      return;
    }
    const facts = await about();
    const strip = await createImageBitmap(new Blob([await bytes("students/photographs.png")], { type: "image/png" }));
    const pictures = facts.photographs.map((_, i) => pixelsOf(strip, i * SIDE));
    root.innerHTML = skeleton(facts.photographs);

    const find = (selector) => root.querySelector(selector);
    const canvas = Object.fromEntries(Object.keys(PANELS).map((name) => [name, find(`[data-panel=${name}] canvas`)]));
    const timeOf = (name) => find(`[data-panel=${name}] [data-time]`);
    const say = (text) => (find("[role=status]").textContent = text);
    const button = (name) => find(`button[data-do=${name}]`);

    // Everything that the reader can change.
    const chosen = { task: "paint", picture: pictures[0], mask: null, lines: null, quality: 8, seed: 0 };
    const brush = { row: 32, column: 32, visible: false, down: false };
    let started = false;
    let walking = null; // what stops the teacher's walk

    function source() {
      const noise = normals(2 * chosen.seed, 3 * PIXELS);
      const z = normals(2 * chosen.seed + 1, 3 * PIXELS);
      if (chosen.task === "paint") {
        return { xT: withHole(chosen.picture, chosen.mask, noise), mask: Float32Array.from(chosen.mask) };
      }
      return { xT: chosen.task === "jpeg" ? jpeg(chosen.picture, chosen.quality) : grey(chosen.lines), z };
    }

    function fresh() {
      chosen.mask = new Uint8Array(PIXELS);
      chosen.lines = sketch(chosen.picture);
    }

    function blank(name) {
      const { width, height } = canvas[name];
      canvas[name].getContext("2d").clearRect(0, 0, width, height);
      timeOf(name).textContent = "";
    }

    // The source has changed: what was answered to another one goes, the student answers anew.
    async function changed() {
      walking?.abort();
      show(canvas.given, source().xT);
      show(canvas.clean, chosen.picture);
      blank("teacher");
      if (started) await answer();
    }

    const ready = new Set();

    // Load a network; its first call also lays out the memory, which is no part of its time.
    async function prepare(name, what, inputs) {
      if (ready.has(name)) return;
      say(`Loading ${what}, one megabyte and a half ...`);
      await painted();
      await call(name, inputs);
      ready.add(name);
    }

    let answering = null;
    let wanted = false;

    // One answer at a time; whatever changes meanwhile is answered once more, in the end.
    async function answer() {
      wanted = true;
      answering ??= (async () => {
        try {
          while (wanted) {
            wanted = false;
            const { task } = chosen;
            const given = source();
            await prepare(`${task}-student`, "the student", given);
            const began = performance.now();
            const x0 = await student(task, given);
            const spent = performance.now() - began;
            show(canvas.student, x0);
            timeOf("student").textContent = `: ${seconds(spent)}`;
            say(`The student answered in ${seconds(spent)}.`);
          }
        } catch (error) {
          say(`No answer: ${error.message}.`);
          throw error;
        } finally {
          answering = null;
        }
      })();
      await answering;
    }

    async function start() {
      button("start").disabled = true;
      try {
        say("Loading the runtime, five megabytes, from beside this page ...");
        await painted();
        await startRuntime();
        started = true;
        button("start").hidden = true;
        for (const name of ["again", "walk"]) button(name).hidden = false;
        await answer();
      } catch (error) {
        say(`The student could not be started: ${error.message}.`);
        throw error;
      } finally {
        button("start").disabled = false;
      }
    }

    async function letTeacherWalk() {
      const stop = (walking = new AbortController());
      button("walk").hidden = true;
      button("stop").hidden = false;
      button("stop").focus();
      try {
        const { task, seed } = chosen;
        const given = source();
        await prepare(`${task}-teacher`, "the teacher", { xt: given.xT, t: Float32Array.of(1), xT: given.xT });
        const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
        const steps = facts.walks[task];
        const began = performance.now();
        say("The teacher walks.");
        let done = 0;
        for await (const xt of walk(task, given, steps, (step) => normals(1000 * (seed + 1) + step, 3 * PIXELS))) {
          if (stop.signal.aborted) return say(`The teacher was stopped after ${done} of ${steps.length} calls.`);
          done++;
          const spent = performance.now() - began;
          if (!still || done === steps.length) show(canvas.teacher, xt);
          timeOf("teacher").textContent = `: call ${done}, ${seconds(spent)}`;
          await painted();
          if (done === steps.length) say(`The teacher answered in ${done} calls and ${seconds(spent)}.`);
        }
      } catch (error) {
        say(`The teacher did not arrive: ${error.message}.`);
        throw error;
      } finally {
        if (walking === stop) walking = null;
        const focused = document.activeElement === button("stop");
        button("stop").hidden = true;
        button("walk").hidden = false;
        if (focused) button("walk").focus();
      }
    }

    // ---- Brush and pencil ----

    const cursor = document.createElement("span");
    cursor.className = "try-it-cursor";
    cursor.hidden = true;
    find("[data-panel=given] .try-it-frame").append(cursor);

    const breadth = () => (chosen.task === "paint" ? Number(find("[name=brush]").value) : 3);

    function placeCursor() {
      const [size, share] = [breadth(), 100 / SIDE];
      cursor.hidden = !brush.visible || chosen.task === "jpeg";
      Object.assign(cursor.style, {
        left: `${(brush.column + 0.5 - size / 2) * share}%`,
        top: `${(brush.row + 0.5 - size / 2) * share}%`,
        width: `${size * share}%`,
        height: `${size * share}%`,
      });
    }

    // A stroke from one place to another; a dab where they are the same.
    function stroke(from, to) {
      const [down, across] = [to.row - from.row, to.column - from.column];
      const length = down * down + across * across;
      const erasing = chosen.task === "sketch" && find("[name=pen]:checked").value === "erase";
      for (let i = 0; i < PIXELS; i++) {
        const [row, column] = [Math.floor(i / SIDE) - from.row, (i % SIDE) - from.column];
        const part = length ? clamp((row * down + column * across) / length, 0, 1) : 0;
        const away = Math.hypot(row - part * down, column - part * across);
        if (chosen.task === "paint") {
          if (away <= breadth() / 2) chosen.mask[i] = 1;
        } else if (erasing) {
          if (away <= 2.5) chosen.lines[i] = 1;
        } else {
          // As dark and as soft as the lines that the student learned from.
          chosen.lines[i] = Math.min(chosen.lines[i], 1 - 2 * Math.tanh(1.5 * Math.exp(-0.5 * (away / 0.8) ** 2)));
        }
      }
      show(canvas.given, source().xT);
    }

    function placeOf(event) {
      const box = canvas.given.getBoundingClientRect();
      return {
        row: ((event.clientY - box.top) / box.height) * SIDE - 0.5,
        column: ((event.clientX - box.left) / box.width) * SIDE - 0.5,
      };
    }

    canvas.given.addEventListener("pointerdown", (event) => {
      if (chosen.task === "jpeg" || event.button > 0) return;
      canvas.given.setPointerCapture(event.pointerId);
      Object.assign(brush, placeOf(event), { down: true, visible: false });
      placeCursor();
      stroke(brush, brush);
    });
    canvas.given.addEventListener("pointermove", (event) => {
      if (!brush.down) return;
      const to = placeOf(event);
      stroke(brush, to);
      Object.assign(brush, to);
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.given.addEventListener(kind, () => {
        if (!brush.down) return;
        brush.down = false;
        changed();
      });
    }

    const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    let spaceDown = false;
    canvas.given.addEventListener("keydown", (event) => {
      if (chosen.task === "jpeg" || !(event.key in MOVES || event.key === " ")) return;
      event.preventDefault(); // neither scroll
      const from = { row: Math.round(brush.row), column: Math.round(brush.column) };
      const [down, across] = (MOVES[event.key] ?? [0, 0]).map((step) => step * (event.shiftKey ? 8 : 1));
      Object.assign(brush, {
        row: clamp(from.row + down, 0, SIDE - 1),
        column: clamp(from.column + across, 0, SIDE - 1),
        visible: true,
      });
      spaceDown ||= event.key === " ";
      if (spaceDown) stroke(from, brush);
      placeCursor();
      say(`Row ${brush.row + 1}, column ${brush.column + 1} of ${SIDE}.`);
    });
    canvas.given.addEventListener("keyup", (event) => {
      if (event.key !== " " || !spaceDown) return;
      spaceDown = false;
      changed();
    });
    canvas.given.addEventListener("focus", () => {
      brush.visible = canvas.given.matches(":focus-visible");
      placeCursor();
    });
    canvas.given.addEventListener("blur", () => {
      if (spaceDown) changed();
      brush.visible = spaceDown = false;
      placeCursor();
    });

    // ---- Controls ----

    function chooseTask() {
      const drawing = chosen.task !== "jpeg";
      find("[data-tools]").innerHTML = TOOLS[chosen.task];
      find(".try-it-help").textContent = HELP[chosen.task];
      canvas.given.setAttribute("role", drawing ? "application" : "img");
      canvas.given.tabIndex = drawing ? 0 : -1;
      canvas.given.setAttribute("aria-label", drawing ? "What the networks get: paint here" : PANELS.given);
      canvas.given.setAttribute("aria-describedby", "try-it-help");
      find(".try-it-panels").dataset.task = chosen.task;
      chosen.quality = 8;
      blank("student");
      placeCursor();
    }

    const actions = {
      start,
      walk: letTeacherWalk,
      stop: () => walking?.abort(),
      again: () => {
        chosen.seed++;
        return changed();
      },
      reset: () => {
        fresh();
        return changed();
      },
      blank: () => {
        chosen.lines.fill(1);
        return changed();
      },
      middle: () => {
        for (let i = 0; i < PIXELS; i++) {
          const inside = (place) => place >= SIDE * 0.3125 && place < SIDE * 0.6875;
          if (inside(Math.floor(i / SIDE)) && inside(i % SIDE)) chosen.mask[i] = 1;
        }
        return changed();
      },
    };

    root.addEventListener("click", (event) => {
      const name = event.target.closest("button")?.dataset.do;
      if (name) actions[name]();
    });
    root.addEventListener("input", ({ target }) => {
      if (target.type === "range") target.parentElement.querySelector("output").value = target.value;
      if (target.name === "brush") placeCursor();
      if (target.name === "quality") {
        chosen.quality = Number(target.value);
        changed();
      }
    });
    root.addEventListener("change", async ({ target }) => {
      if (target.name === "task") {
        chosen.task = target.value;
        chooseTask();
        changed();
      }
      if (target.name === "picture" && target.value !== "own") {
        chosen.picture = pictures[Number(target.value)];
        fresh();
        changed();
      }
      if (target.type === "file" && target.files.length) {
        try {
          const image = await createImageBitmap(target.files[0]);
          const size = Math.min(image.width, image.height);
          chosen.picture = pixelsOf(image, (image.width - size) / 2, (image.height - size) / 2, size);
        } catch {
          target.value = "";
          say("This file is no picture that the browser can read.");
          return;
        }
        find("option[value=own]").hidden = false;
        find("[name=picture]").value = "own";
        fresh();
        changed();
      }
    });
    find("form").addEventListener("submit", (event) => event.preventDefault());

    fresh();
    chooseTask();
    await changed();
  }

  const root = document.getElementById("try-it-page");
  window.tryIt.furnished = furnish(root).catch((error) => {
    root.textContent = `This page could not be furnished: ${error.message}. The picture below shows stored answers.`;
    throw error;
  });
})();
