// Validates custom resources, a JSON list of manifests on standard input, by what their makers say, as @kubernetes-models has compiled it: values
// by the schemas, and unknown fields, which those let pass, by the types, of which an object literal must not have more. Prints a JSON list
// with the errors of each.
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const HERE = dirname(fileURLToPath(import.meta.url));
const PACKAGES = {
  'monitoring.coreos.com': ['prometheus-operator', 'ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoring'],
  'gateway.networking.k8s.io': ['gateway-api', 'IoK8sSigsGatewayApiApis'],
  'networking.istio.io': ['istio', 'NetworkingIstioIo'],
  'security.istio.io': ['istio', 'SecurityIstioIo'],
};

function place({ apiVersion, kind }) {
  const [group, version] = apiVersion.split('/');
  if (!(group in PACKAGES)) throw new Error(`there is no schema for ${apiVersion}`);
  const [name, prefix] = PACKAGES[group];
  const capital = version[0].toUpperCase() + version.slice(1);
  const folder = `./node_modules/@kubernetes-models/${name}`;
  return { schema: `${folder}/_schemas/${prefix}${capital}${kind}.js`, type: `${folder}/${group}/${version}/${kind}.js` };
}

async function wrongValues(manifest) {
  const { validate } = await import(place(manifest).schema);
  return validate(manifest) ? [] : validate.errors.map((error) => `${error.instancePath} ${error.keyword} ${JSON.stringify(error.params)}`);
}

function unknownFields(manifests) {
  const lines = ["import type { ModelData } from '@kubernetes-models/base';"];
  for (const [number, { apiVersion, kind, ...rest }] of manifests.entries()) {
    const { type } = place({ apiVersion, kind });
    lines.push(`export const m${number}: ModelData<import('${type}').I${kind}> = ${JSON.stringify(rest)};`);
  }
  const file = join(HERE, 'manifests.ts');
  const options = { strict: true, noEmit: true, skipLibCheck: true, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, target: ts.ScriptTarget.ES2022, types: [] };
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile: read, getSourceFile } = host;
  const text = lines.join('\n');
  host.fileExists = (name) => name === file || fileExists(name);
  host.readFile = (name) => (name === file ? text : read(name));
  host.getSourceFile = (name, ...more) => (name === file ? ts.createSourceFile(name, text, options.target) : getSourceFile(name, ...more));
  const errors = manifests.map(() => []);
  for (const found of ts.getPreEmitDiagnostics(ts.createProgram([file], options, host))) {
    const line = found.file?.fileName === file ? found.file.getLineAndCharacterOfPosition(found.start).line - 1 : -1;
    const message = ts.flattenDiagnosticMessageText(found.messageText, ' ');
    if (line < 0) throw new Error(message);
    errors[line].push(message);
  }
  return errors;
}

const manifests = JSON.parse(await readFile('/dev/stdin', 'utf8'));
const values = await Promise.all(manifests.map(wrongValues));
const fields = unknownFields(manifests);
console.log(JSON.stringify(manifests.map((_, number) => [...values[number], ...fields[number]])));
