// Labels of JPEGs by a packed model, in Node or, with little change, in a browser: npm install onnxruntime-web jpeg-js
// featx pack model.featx -o model.onnx && node predict.mjs model.onnx classes.json photo.jpg…
//
// onnxruntime-web does not tell a file's metadata, so the names of the classes come from a JSON list of their own:
// python -c "import json, featx; print(json.dumps(featx.PackedModel('model.onnx').classes))" > classes.json

import { readFileSync } from "node:fs";
import jpeg from "jpeg-js";
import * as ort from "onnxruntime-web";

const [model, names, ...photos] = process.argv.slice(2);
const classes = JSON.parse(readFileSync(names, "utf8"));
const session = await ort.InferenceSession.create(readFileSync(model));

for (const photo of photos) {
  const { width, height, data } = jpeg.decode(readFileSync(photo), { useTArray: true, formatAsRGBA: false });
  const images = new ort.Tensor("uint8", data, [1, height, width, 3]);
  const { probabilities } = await session.run({ images }, ["probabilities"]);
  const best = probabilities.data.indexOf(Math.max(...probabilities.data));
  console.log(`${photo}: ${classes[best]} ${probabilities.data[best].toFixed(4)}`);
}
