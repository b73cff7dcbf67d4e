// Runs in the browser, once; `element` holds what viewer.py wrote, `watch` calls back when that is another.
// Class ids come as text, not as a picture: some browsers falsify what is read from a canvas, against tracking.
const find = (selector) => element.querySelector(selector);
let ids = null; // Uint16Array, the class of each pixel of the result, row by row

async function load() {
  const packed = find('.stack')?.dataset.ids;
  ids = null;
  if (!packed) return;
  const stream = (await fetch(packed)).body.pipeThrough(new DecompressionStream('deflate'));
  const unpacked = new Uint16Array(await new Response(stream).arrayBuffer());
  if (find('.stack')?.dataset.ids === packed) ids = unpacked; // else the next result is there already
}

const pixel = (place, start, length, count) =>
  Math.min(count - 1, Math.max(0, Math.floor((place - start) / length * count)));

function point(event) {
  const stack = event.target.closest('.stack');
  const text = find('.pointer');
  find('.current')?.classList.remove('current');
  text?.replaceChildren();
  if (!stack || !ids) return;
  const [width, height] = [stack.dataset.width, stack.dataset.height].map(Number);
  const box = stack.getBoundingClientRect();
  const x = pixel(event.clientX, box.left, box.width, width);
  const y = pixel(event.clientY, box.top, box.height, height);
  const row = find(`.legend li[data-id="${ids[y * width + x]}"]`);
  if (!row) return;
  row.classList.add('current');
  text.append(row.querySelector('.swatch').cloneNode(), `${row.querySelector('.name').textContent} (${x}, ${y})`);
}

for (const kind of ['pointermove', 'pointerdown', 'pointerleave']) element.addEventListener(kind, point);
watch('value', load);
load();
