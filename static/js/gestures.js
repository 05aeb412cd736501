// Mouse, touch and wheel on the stage of a comparison: drag the divider, drag the picture, pinch, turn the wheel,
// double-click, hold, paint.

const WHEEL_STEP = 120;
const HANDLE_REACH_PIXELS = 28;
const MIDDLE_BUTTON = 1; // moves the picture while there is a brush

/** Watch the stage; `compare` has view, mode, slideTo, hold, draw, and a brush (begin, move, end, cancel, hover) or null. */
export function watchGestures(stage, handle, compare) {
  const pointers = new Map();
  let sliding = false;
  let painting = false;
  let pinch = null;

  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top, width: box.width };
  };
  const span = (corner = { x: 0, y: 0 }) => {
    const [one, other] = [...pointers.values()];
    const x = (one.x + other.x) / 2 - corner.x, y = (one.y + other.y) / 2 - corner.y;
    return { x, y, length: Math.hypot(one.x - other.x, one.y - other.y) };
  };
  const beginPinch = () => {
    const corner = cornerOf(span(), compare.view); // a pinch belongs to the half that it began in
    return { ...span(corner), corner, zoom: compare.view.zoom };
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 && !(event.button === MIDDLE_BUTTON && compare.brush)) return;
    const at = place(event);
    pointers.set(event.pointerId, at);
    stage.setPointerCapture(event.pointerId);
    pinch = pointers.size === 2 ? beginPinch() : null;
    if (pinch) {
      if (painting) compare.brush?.cancel();
      painting = false;
      return void compare.hold(false);
    }
    painting = Boolean(compare.brush) && event.button === 0;
    if (painting) return compare.brush.begin(at);
    const near = Math.abs(at.x - compare.cut * at.width) < HANDLE_REACH_PIXELS;
    sliding = compare.mode === "slider" && (near || !compare.view.canPan || handle.contains(event.target));
    if (sliding) {
      compare.slideTo(at.x / at.width);
      handle.focus({ preventScroll: true });
    } else if (compare.mode === "hold") compare.hold(true); // and a picture that is larger than the stage moves with it
  });

  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId), at = place(event);
    if (!pinch && !painting) compare.brush?.hover(at);
    if (!before) return;
    pointers.set(event.pointerId, at);
    if (painting) return compare.brush?.move(at);
    if (pinch && pointers.size === 2) {
      const now = span(pinch.corner);
      compare.view.zoomTo(pinch.zoom * (now.length / pinch.length), now.x, now.y);
      compare.view.panBy(now.x - pinch.x, now.y - pinch.y);
      Object.assign(pinch, { x: now.x, y: now.y });
    } else if (sliding) compare.slideTo(at.x / at.width);
    else compare.view.panBy(at.x - before.x, at.y - before.y);
    compare.draw();
  });

  const release = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (painting) compare.brush?.end();
    pinch = null;
    sliding = painting = false;
    if (compare.held) compare.hold(false);
  };
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = inPane(place(event), compare.view);
    compare.view.zoomBy(Math.max(-2, Math.min(2, -event.deltaY / WHEEL_STEP)), at.x, at.y);
    compare.draw();
  }, { passive: false });

  stage.addEventListener("dblclick", (event) => {
    if (compare.brush) return; // two touches of it
    const at = inPane(place(event), compare.view);
    if (compare.view.fitted) compare.view.zoomTo(Math.max(1, 2 * compare.view.zoom), at.x, at.y);
    else compare.view.fit();
    compare.draw();
  });
}

/** Side by side both halves show the same view: a point of the second half means the same point of the first. */
function inPane(at, view) {
  const corner = cornerOf(at, view);
  return { x: at.x - corner.x, y: at.y - corner.y };
}

/** Where the half lies that holds a point of the stage. */
function cornerOf({ x, y }, { stage: { width, height } }) {
  return { x: width * Math.floor(x / width), y: height * Math.floor(y / height) };
}
