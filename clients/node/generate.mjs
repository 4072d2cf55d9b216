#!/usr/bin/env node
// Makes src/proto from the .proto files, with buf (tests/requirements.txt) and protoc-gen-es (package-lock.json): generate.mjs [FOLDER].

import { execFileSync } from 'node:child_process';
import { join, resolve } from 'node:path';

const here = import.meta.dirname;
const repository = resolve(here, '../..');
const into = resolve(process.argv[2] ?? join(here, 'src/proto'));
const template = {
  version: 'v2',
  plugins: [{ local: join(here, 'node_modules/.bin/protoc-gen-es'), out: into, opt: ['target=ts', 'import_extension=js'] }],
};
const inputs = [
  ['proto', ['sessionsidecar/v1/session_service.proto', 'sessionsidecar/v1/session_admin_service.proto', 'sessionsidecar/dev/v1/test_clock_service.proto']],
  // What a client reads of google/rpc, in a package of its own. The Python client says why.
  ['clients/python/proto', ['errors.proto']],
];
for (const [root, files] of inputs) {
  const paths = files.flatMap((file) => ['--path', join(repository, root, file)]);
  execFileSync(join(repository, '.tools/venv/bin/buf'), ['generate', join(repository, root), '--template', JSON.stringify(template), ...paths], { stdio: 'inherit' });
}
