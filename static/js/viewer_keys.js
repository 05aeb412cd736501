// What the keys of the comparison do: move the divider or the picture, zoom, hold, change the way to compare.

const SLIDER_STEPS = { ArrowLeft: -0.01, ArrowRight: 0.01, ArrowDown: -0.01, ArrowUp: 0.01, PageDown: -0.1, PageUp: 0.1 };
const PAN_STEPS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const PAN_PIXELS = 60;

/** The acts of the rows for the viewer in the table of `shortcuts`. `turn` has step(by) and nextMode(). */
export function viewerActs(compare, turn) {
  const slide = (to) => compare.mode === "slider" && compare.slideTo(to);
  const zoom = (change) => () => {
    change(compare.view);
    compare.draw();
  };
  return {
    move: ({ key, target }) => {
      const isDivider = target === compare.handle || (compare.mode === "slider" && !compare.view.canPan);
      if (isDivider) return slide(compare.cut + SLIDER_STEPS[key]);
      const [x, y] = PAN_STEPS[key];
      zoom((view) => view.panBy(PAN_PIXELS * x, PAN_PIXELS * y))();
    },
    cut_far: ({ key }) => slide(compare.cut + SLIDER_STEPS[key]),
    cut_end: ({ key }) => slide(key === "End" ? 1 : 0),
    hold: (on) => compare.view && compare.hold(on),
    closer: zoom((view) => view.zoomBy(1)),
    farther: zoom((view) => view.zoomBy(-1)),
    fit: zoom((view) => view.fit()),
    zoom_100: zoom((view) => view.zoomTo(1)),
    zoom_400: zoom((view) => view.zoomTo(4)),
    next: () => turn.step(1),
    previous: () => turn.step(-1),
    mode: () => turn.nextMode(),
  };
}
