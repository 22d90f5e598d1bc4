"""Draws a run's metrics.jsonl as SVG: python3 bench/curve.py RUN OUT.svg (standard library only)."""
import json
import sys

W, H, LEFT, RIGHT, TOP, BOTTOM = 760, 320, 56, 56, 34, 44
LOSS, DICE, INK = "#4a6fa5", "#c8553d", "#1c2430"


def read(run):
    lines = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
    train = [(d["step"], d["loss"]) for d in lines if d["kind"] == "train"]
    evals = [(d["step"], d["dice"]) for d in lines if d["kind"] == "eval"]
    return train, evals


def smooth(points, width):
    """Mean over the last `width` points."""
    out = []
    for i, (step, _) in enumerate(points):
        part = [loss for _, loss in points[max(0, i - width + 1): i + 1]]
        out.append((step, sum(part) / len(part)))
    return out


def main():
    run, out = sys.argv[1:3]
    train, evals = read(run)
    last = train[-1][0]
    top = max(loss for _, loss in train)
    x = lambda step: LEFT + (W - LEFT - RIGHT) * step / last
    y_loss = lambda v: H - BOTTOM - (H - TOP - BOTTOM) * v / top
    y_dice = lambda v: H - BOTTOM - (H - TOP - BOTTOM) * v
    path = lambda points, y: " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in points)
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}" font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{W}" height="{H}" fill="#ffffff"/>',
    ]
    for i in range(6):
        v = i / 5
        svg.append(f'<line x1="{LEFT}" x2="{W - RIGHT}" y1="{y_dice(v):.1f}" y2="{y_dice(v):.1f}" stroke="#e3e8ee"/>')
        svg.append(f'<text x="{W - RIGHT + 8}" y="{y_dice(v) + 4:.1f}" fill="{DICE}">{v:.1f}</text>')
        svg.append(f'<text x="{LEFT - 8}" y="{y_dice(v) + 4:.1f}" text-anchor="end" fill="{LOSS}">{v * top:.1f}</text>')
    for i in range(5):
        step = round(last * i / 4)
        svg.append(f'<text x="{x(step):.1f}" y="{H - BOTTOM + 18}" text-anchor="middle">{step}</text>')
    svg += [
        f'<polyline points="{path(train, y_loss)}" fill="none" stroke="{LOSS}" stroke-opacity="0.25"/>',
        f'<polyline points="{path(smooth(train, 32), y_loss)}" fill="none" stroke="{LOSS}" stroke-width="2"/>',
        f'<polyline points="{path(evals, y_dice)}" fill="none" stroke="{DICE}" stroke-width="2"/>',
    ]
    for s, v in evals:
        svg.append(f'<circle cx="{x(s):.1f}" cy="{y_dice(v):.1f}" r="3.5" fill="{DICE}"/>')
    s, v = evals[-1]
    svg.append(f'<text x="{x(s) - 6:.1f}" y="{y_dice(v) - 9:.1f}" text-anchor="end" fill="{DICE}" font-weight="bold">{v:.3f}</text>')
    svg.append(f'<text x="{LEFT}" y="18" fill="{LOSS}">training loss (thin: each step)</text>')
    svg.append(f'<text x="{W - RIGHT}" y="18" text-anchor="end" fill="{DICE}">pooled Dice, evaluation split</text>')
    svg.append(f'<text x="{W / 2}" y="{H - 8}" text-anchor="middle">optimizer step</text></svg>')
    with open(out, "w") as f:
        f.write("\n".join(svg) + "\n")


main()
