// Points of a metric of many runs, as views/charts.py sends them: see lines_response there for the form.

/** Columns by run id: [steps, seconds, values, other metric's values]; `runs` is a query that selects runs. */
export async function series(runs, query) {
  const answer = await fetch(`/runs/series?${runs}&${query}`);
  if (!answer.ok) return new Map();
  const bytes = await answer.arrayBuffer();
  const length = new DataView(bytes).getUint32(0, true);
  const heads = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const total = heads.reduce((sum, [, points]) => sum + points, 0);
  const width = query.has("x") ? 4 : 3;
  let at = 0;
  return new Map(heads.map(([id, points]) => {
    const columns = Array.from({ length: width }, (_, column) => new Float64Array(bytes, 4 + length + (column * total + at) * 8, points));
    at += points;
    return [id, columns];
  }));
}
