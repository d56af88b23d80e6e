"use strict";

const LARGEST = 6; // screen pixels that a pixel of an image has at most before anyone zooms

/* Shows the images of one item: channels, window and level, zoom and pan. All panels move and are windowed together. */
class Viewer {
  constructor(root, study) {
    this.root = root;
    this.study = study;
    this.smooth = true;
    this.dragWindows = false;
    this.chosen = null; // a channel group of the study, or null for all side by side
    this.images = [];
    this.pointers = new Map();
    this.onChange = () => {};
    this.reset();
    new ResizeObserver(() => this.layOut()).observe(root);
    root.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    root.addEventListener("pointerdown", (event) => this.pointerDown(event));
    root.addEventListener("pointermove", (event) => this.pointerMove(event));
    for (const end of ["pointerup", "pointercancel"]) {
      root.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    root.addEventListener("dblclick", () => this.fit());
    root.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /* Shows an item: its values are decoded from the page's text. */
  show(item, names) {
    this.panels = []; // those of the last item
    this.item = item;
    this.names = names;
    this.images = item.images.map((id) => this.decode(id, item));
    if (this.chosen !== null && !item.groups.includes(this.chosen)) this.chosen = null;
    this.ranges = new Map(item.groups.map((group) => [group, this.usualRange(group)]));
    this.reset();
    this.build();
  }

  /* Hides the images and says why; they are shown again by show() only. */
  cover(text) {
    this.images = [];
    this.panels = [];
    const cover = document.createElement("p");
    cover.className = "cover";
    cover.textContent = text;
    this.root.replaceChildren(cover);
  }

  get groups() {
    return this.item && this.chosen !== null ? [this.chosen] : this.item ? this.item.groups : [];
  }

  chooseGroup(group) {
    this.chosen = group;
    if (this.images.length) this.build();
    this.onChange();
  }

  reset() {
    this.wider = 0; // window: powers of two of the usual range's width
    this.higher = 0; // level: in widths of the usual range
    this.zoom = 1;
    this.centre = [0.5, 0.5];
    this.repaint();
  }

  fit() {
    this.zoom = 1;
    this.centre = [0.5, 0.5];
    this.redraw();
  }

  setWindow(wider, higher) {
    this.wider = Math.min(2, Math.max(-4, wider));
    this.higher = Math.min(1, Math.max(-1, higher));
    this.repaint();
  }

  setSmooth(smooth) {
    this.smooth = smooth;
    this.redraw();
  }

  /* Zooms by a factor so that the place (x, y), as shares of a panel, stays where it is. */
  zoomBy(factor, x = 0.5, y = 0.5) {
    const panel = (this.panels || [])[0];
    const before = this.zoom;
    this.zoom = Math.min(40, Math.max(1, before * factor));
    if (panel) {
      const share = this.panelShare(panel);
      const moved = 1 / before - 1 / this.zoom;
      this.centre[0] += (x - 0.5) * share[0] * moved;
      this.centre[1] += (y - 0.5) * share[1] * moved;
    }
    this.redraw();
  }

  /* Moves what is seen by shares of the visible part. */
  pan(x, y) {
    this.centre[0] += x / this.zoom;
    this.centre[1] += y / this.zoom;
    this.redraw();
  }

  /* How many image widths and heights a panel shows at zoom 1. */
  panelShare(panel) {
    const { width, height } = this.study;
    const box = panel.canvas.getBoundingClientRect();
    const fit = this.fitScale(box.width, box.height, 1) || 1;
    return [box.width / (width * fit), box.height / (height * fit)];
  }

  /* Screen pixels for each pixel of an image at zoom 1: small images are not blown up to fill the screen. */
  fitScale(width, height, density) {
    return Math.min(width / this.study.width, height / this.study.height, LARGEST * density);
  }

  decode(id, item) {
    const text = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const values = this.study.bytes === 2 ? new Uint16Array(bytes.buffer) : bytes;
    const size = this.study.width * this.study.height;
    const planes = new Map();
    let start = 0;
    for (const group of item.groups) {
      const count = this.study.groups[group].planes;
      planes.set(group, Array.from({ length: count }, (_, c) => values.subarray(start + c * size, start + (c + 1) * size)));
      start += count * size;
    }
    return planes;
  }

  /* Colour is shown over its whole range; of grey, from the least value to the 99.5th percentile above the darkest. */
  usualRange(group) {
    const { planes, levels } = this.study.groups[group];
    if (planes === 3) return [0, levels - 1];
    const counts = new Uint32Array(levels);
    for (const image of this.images) for (const plane of image.get(group)) for (const value of plane) counts[value]++;
    const first = counts.findIndex((count) => count > 0);
    let left = 0;
    for (let value = first + 1; value < levels; value++) left += counts[value];
    left *= 0.995;
    let last = first + 1;
    for (; last < levels - 1; last++) if ((left -= counts[last]) <= 0) break;
    return [first, Math.min(last, levels - 1)];
  }

  /* What each value looks like, 0 to 255. */
  shades(group) {
    const { levels } = this.study.groups[group];
    const [first, last] = this.ranges.get(group);
    const usual = Math.max(last - first, 1);
    const width = usual * 2 ** this.wider;
    const low = (first + last) / 2 + this.higher * usual - width / 2;
    const shades = new Uint8ClampedArray(levels);
    for (let value = 0; value < levels; value++) shades[value] = (255 * (value - low)) / width;
    return shades;
  }

  build() {
    this.panels = [];
    const frames = this.images.map((image, number) => {
      const frame = document.createElement("div");
      frame.className = "image";
      if (this.names.length) {
        const name = document.createElement("p");
        name.className = "name";
        name.textContent = this.names[number];
        frame.append(name);
      }
      const grid = document.createElement("div");
      grid.className = "panels";
      for (const group of this.groups) {
        const panel = document.createElement("div");
        panel.className = "panel";
        const canvas = document.createElement("canvas");
        const label = this.study.groups.length > 1 ? this.study.groups[group].name : "";
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", [this.names[number] || "Image", label].filter(Boolean).join(", "));
        panel.append(canvas);
        if (label) {
          const name = document.createElement("p");
          name.className = "name";
          name.textContent = label;
          panel.append(name);
        }
        grid.append(panel);
        const pixels = document.createElement("canvas");
        pixels.width = this.study.width;
        pixels.height = this.study.height;
        this.panels.push({ canvas, pixels, group, planes: image.get(group) });
      }
      frame.append(grid);
      return frame;
    });
    this.root.replaceChildren(...frames);
    this.layOut();
    this.repaint();
  }

  /* As many columns as show the panels largest, and canvases of as many pixels as the screen has there. */
  layOut() {
    for (const grid of this.root.querySelectorAll(".panels")) {
      const { width, height } = this.study;
      const count = grid.children.length;
      let best = [0, 1];
      for (let columns = 1; columns <= count; columns++) {
        const rows = Math.ceil(count / columns);
        const size = Math.min(grid.clientWidth / columns / width, grid.clientHeight / rows / height);
        if (size > best[0]) best = [size, columns];
      }
      grid.style.gridTemplateColumns = `repeat(${best[1]}, minmax(0, 1fr))`;
      grid.style.gridAutoRows = "minmax(0, 1fr)";
    }
    for (const { canvas } of this.panels || []) {
      canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
      canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
    }
    this.redraw();
  }

  repaint() {
    const shades = new Map();
    for (const { pixels, group, planes } of this.panels || []) {
      if (!shades.has(group)) shades.set(group, this.shades(group));
      const shade = shades.get(group);
      const context = pixels.getContext("2d");
      const picture = context.createImageData(pixels.width, pixels.height);
      const [red, green, blue] = planes.length === 3 ? planes : [planes[0], planes[0], planes[0]];
      for (let i = 0, at = 0; i < red.length; i++, at += 4) {
        picture.data[at] = shade[red[i]];
        picture.data[at + 1] = shade[green[i]];
        picture.data[at + 2] = shade[blue[i]];
        picture.data[at + 3] = 255;
      }
      context.putImageData(picture, 0, 0);
    }
    this.redraw();
  }

  redraw() {
    this.centre = this.centre.map((place) => Math.min(1, Math.max(0, place)));
    if (this.zoom === 1) this.centre = [0.5, 0.5];
    for (const { canvas, pixels } of this.panels || []) {
      const context = canvas.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, canvas.width, canvas.height);
      const scale = this.fitScale(canvas.width, canvas.height, devicePixelRatio) * this.zoom;
      const left = canvas.width / 2 - this.centre[0] * pixels.width * scale;
      const top = canvas.height / 2 - this.centre[1] * pixels.height * scale;
      context.imageSmoothingEnabled = this.smooth;
      context.imageSmoothingQuality = "high";
      context.drawImage(pixels, left, top, pixels.width * scale, pixels.height * scale);
    }
    this.onChange();
  }

  wheel(event) {
    event.preventDefault();
    const [x, y] = this.place(event);
    this.zoomBy(Math.exp(-Math.sign(event.deltaY) * 0.18), x, y);
  }

  /* Where in its panel an event happened, as shares of it. */
  place(event) {
    const panel = event.target.closest(".panel") || this.root;
    const box = panel.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  pointerDown(event) {
    if (!event.target.closest(".panel")) return;
    event.target.setPointerCapture(event.pointerId);
    const windows = this.dragWindows !== event.shiftKey || event.button === 2;
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, windows });
  }

  pointerMove(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.panels.length) return;
    const [x, y] = [event.clientX - before.x, event.clientY - before.y];
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, pointer]) => pointer);
    this.pointers.set(event.pointerId, { ...before, x: event.clientX, y: event.clientY });
    const box = this.panels[0].canvas.getBoundingClientRect();
    const share = this.panelShare(this.panels[0]);
    if (others.length) {
      const apart = (from) => Math.hypot(from.x - others[0].x, from.y - others[0].y) || 1;
      const [u, v] = this.place({ target: event.target, clientX: others[0].x, clientY: others[0].y });
      this.zoomBy(apart({ x: event.clientX, y: event.clientY }) / apart(before), u, v);
    } else if (before.windows) {
      this.setWindow(this.wider + x / 150, this.higher - y / 400);
    } else {
      this.pan((-x / box.width) * share[0], (-y / box.height) * share[1]);
    }
  }
}
