// Runs in the browser, once; `element` holds what viewer.py wrote, `watch` calls back when that is another.
// Class ids come as text, not as a picture: some browsers falsify what is read from a canvas, against tracking.
const find = (selector) => element.querySelector(selector);
let ids = null; // Uint16Array, the class of each pixel of the result shown, row by row
let rows = new Map(); // class id -> its row of the legend

async function show() {
  const canvas = find('canvas');
  ids = null;
  if (!canvas) return;
  const packed = canvas.dataset.ids;
  const stream = (await fetch(packed)).body.pipeThrough(new DecompressionStream('deflate'));
  const unpacked = new Uint16Array(await new Response(stream).arrayBuffer());
  if (canvas.dataset.ids !== packed) return; // the next result is there already
  rows = new Map([...element.querySelectorAll('.legend li')].map((row) => [Number(row.dataset.id), row]));
  ids = unpacked;
  paint(canvas);
}

function paint(canvas) {
  const { width, height } = size();
  const step = Math.ceil(Math.max(width, height) / 4096); // larger canvases stay blank in some browsers
  canvas.width = Math.ceil(width / step);
  canvas.height = Math.ceil(height / step);
  const picture = new ImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(picture.data.buffer); // bytes in the order red, green, blue, opacity
  const colors = new Map([...rows].map(([id, row]) => [id, Number(row.dataset.color)]));
  for (let y = 0, i = 0; y < height; y += step) {
    for (let x = 0; x < width; x += step) pixels[i++] = colors.get(ids[y * width + x]);
  }
  canvas.getContext('2d').putImageData(picture, 0, 0);
}

function size() {
  const { width, height } = find('.stack').dataset;
  return { width: Number(width), height: Number(height) };
}

function point(event) {
  const stack = event.target.closest('.stack');
  element.querySelector('.legend .current')?.classList.remove('current');
  const text = find('.pointer');
  if (text) text.replaceChildren();
  if (!stack || !ids) return;
  const { width, height } = size();
  const box = stack.getBoundingClientRect();
  const x = Math.floor((event.clientX - box.left) / box.width * width);
  const y = Math.floor((event.clientY - box.top) / box.height * height);
  const row = x >= 0 && y >= 0 && x < width && y < height && rows.get(ids[y * width + x]);
  if (!row) return;
  row.classList.add('current');
  text.append(row.querySelector('.swatch').cloneNode(), `${row.querySelector('.name').textContent} (${x}, ${y})`);
}

element.addEventListener('pointermove', point);
element.addEventListener('pointerdown', point);
element.addEventListener('pointerleave', point);
watch('value', show);
show();
