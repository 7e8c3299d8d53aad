// Draws a dot for each row, with WebGL where there is one, else on a plain canvas.

const VERTEX = `
attribute vec2 place; attribute vec4 colour; uniform vec4 view; uniform float size; varying vec4 tint;
void main() { gl_Position = vec4(place * view.xy + view.zw, 0.0, 1.0); gl_PointSize = size; tint = colour; }`;
const FRAGMENT = `
precision mediump float; varying vec4 tint;
void main() {
  float r = length(gl_PointCoord - 0.5) * 2.0;
  float a = tint.a * (1.0 - smoothstep(0.8, 1.0, r));
  gl_FragColor = vec4(tint.rgb * a, a);
}`;

export class Points {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true, preserveDrawingBuffer: false });
    if (gl) this.begin(gl);
    else this.plain = canvas.getContext("2d");
  }

  begin(gl) {
    this.gl = gl;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.uniforms = { view: gl.getUniformLocation(program, "view"), size: gl.getUniformLocation(program, "size") };
    this.buffers = ["place", "colour"].map((name, i) => {
      const buffer = gl.createBuffer(), at = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, i ? 4 : 2, i ? gl.UNSIGNED_BYTE : gl.FLOAT, Boolean(i), 0, 0);
      return buffer;
    });
  }

  places(values) {
    this.values = values;
    if (this.gl) this.fill(0, values);
  }

  colours(values) {
    this.rgba = values;
    if (this.gl) this.fill(1, values);
  }

  fill(which, values) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.buffers[which]);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, values, this.gl.DYNAMIC_DRAW);
  }

  // x and y on the canvas, in pixels of the screen, are place * scale + shift.
  draw({ scale, x, y }, size, hidden) {
    const { width, height } = this.canvas;
    if (!this.gl) return this.drawPlain({ scale, x, y }, size, hidden);
    this.gl.viewport(0, 0, width, height);
    this.gl.clearColor(0, 0, 0, 0);
    this.gl.clear(this.gl.COLOR_BUFFER_BIT);
    if (hidden || !this.values || !this.rgba) return;
    this.gl.uniform4f(this.uniforms.view, 2 * scale / width, -2 * scale / height, 2 * x / width - 1, 1 - 2 * y / height);
    this.gl.uniform1f(this.uniforms.size, size);
    this.gl.drawArrays(this.gl.POINTS, 0, this.values.length / 2);
  }

  drawPlain({ scale, x, y }, size, hidden) {
    this.plain.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (hidden || !this.values || !this.rgba) return;
    for (let i = 0; i < this.values.length / 2; i++) {
      const [r, g, b, a] = this.rgba.subarray(4 * i, 4 * i + 4);
      this.plain.fillStyle = `rgb(${r} ${g} ${b} / ${a / 255})`;
      this.plain.fillRect(this.values[2 * i] * scale + x - size / 2, this.values[2 * i + 1] * scale + y - size / 2, size, size);
    }
  }
}
