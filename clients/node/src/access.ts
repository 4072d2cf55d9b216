// Where a client connects to, whom it trusts there, and as whom it comes. What is in a file is told by no error.

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { type ChannelCredentials, Client, credentials, Metadata } from '@grpc/grpc-js';
import { SidecarError } from './errors.js';

export interface ConnectionOptions {
  /** Where the sidecar is: `HOST:PORT`, `unix:/run/session-sidecar.sock`, or with TLS `https://HOST:PORT`, whose certificate must be for
   * HOST. Default: SESSION_SIDECAR_TARGET, else 127.0.0.1:50151. */
  target?: string | undefined;
  /** With https only. PEM of the authorities to trust in place of Node's own. Default: SESSION_SIDECAR_TLS_CA_FILE. */
  tlsCaFile?: string | undefined;
  /** With https only. PEM of the certificate to show; needs `tlsKeyFile`. Default: SESSION_SIDECAR_TLS_CERT_FILE. */
  tlsCertFile?: string | undefined;
  /** With https only. PEM of the key of `tlsCertFile`. Default: SESSION_SIDECAR_TLS_KEY_FILE. */
  tlsKeyFile?: string | undefined;
  /** The first line of this file that is not empty is the bearer token to show with every call. It is read again when it changes.
   * Default: SESSION_SIDECAR_TOKEN_FILE. */
  tokenFile?: string | undefined;
}

const DEFAULT_TARGET = '127.0.0.1:50151';
const VARIABLES = {
  tlsCaFile: 'SESSION_SIDECAR_TLS_CA_FILE',
  tlsCertFile: 'SESSION_SIDECAR_TLS_CERT_FILE',
  tlsKeyFile: 'SESSION_SIDECAR_TLS_KEY_FILE',
  tokenFile: 'SESSION_SIDECAR_TOKEN_FILE',
} as const;

const CHANNEL = {
  // Else a watch whose connection is silent would get the same one again.
  'grpc.use_local_subchannel_pool': 1,
  // The sidecar is beside us: http_proxy is not meant, and it is back soon after a restart.
  'grpc.enable_http_proxy': 0,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
};
// A path is no valid :authority, and any other is of no use to a sidecar in clear text.
const CLEAR_TEXT = { ...CHANNEL, 'grpc.default_authority': 'localhost' };

/** What the options and the environment say. */
export class Access {
  /** In gRPC's words. */
  readonly target: string;
  readonly #tls: Tls | undefined;
  readonly #token: Token | undefined;

  /** Throws a SidecarError if something is of no use. */
  constructor(options: ConnectionOptions) {
    const target = options.target || process.env['SESSION_SIDECAR_TARGET'] || DEFAULT_TARGET;
    const bare = target.replace(/^(https?|tcp):\/\//, '');
    this.target = bare.startsWith('unix:') ? bare : bare.replace(/\/+$/, '');
    if (target.startsWith('https://')) {
      this.#tls = new Tls(options);
    } else {
      const vain = (['tlsCaFile', 'tlsCertFile', 'tlsKeyFile'] as const).find((option) => options[option]);
      if (vain) throw new SidecarError(`${vain} is for TLS: give a target https://HOST:PORT`);
    }
    const file = fileOf(options, 'tokenFile');
    this.#token = file && new Token(file);
  }

  /** A connection of its own. */
  connect(): Client {
    return this.#tls ? new Client(this.target, this.#tls.credentials(), CHANNEL) : new Client(this.target, credentials.createInsecure(), CLEAR_TEXT);
  }

  /** What goes with a call that begins now. */
  metadata(): Metadata {
    const metadata = new Metadata();
    if (this.#token) metadata.set('authorization', `Bearer ${this.#token.now()}`);
    return metadata;
  }
}

class Tls {
  readonly #ca: NamedFile | undefined;
  readonly #certificate: NamedFile | undefined;
  readonly #key: NamedFile | undefined;
  #known: ChannelCredentials;

  constructor(options: ConnectionOptions) {
    this.#ca = fileOf(options, 'tlsCaFile');
    this.#certificate = fileOf(options, 'tlsCertFile');
    this.#key = fileOf(options, 'tlsKeyFile');
    if (!this.#certificate !== !this.#key) {
      const [has, lacks] = this.#certificate ? [this.#certificate, 'tlsKeyFile' as const] : [this.#key!, 'tlsCertFile' as const];
      throw new SidecarError(`${has.name} is of no use without ${has.name in VARIABLES ? lacks : VARIABLES[lacks]}`);
    }
    this.#known = this.#read();
  }

  /** For a connection that begins now. Files that are just being replaced are those of before. */
  credentials(): ChannelCredentials {
    try {
      this.#known = this.#read();
    } catch (error) {
      if (!(error instanceof SidecarError)) throw error;
    }
    return this.#known;
  }

  #read(): ChannelCredentials {
    const [ca, certificate] = [this.#ca, this.#certificate].map((file) => file?.read('certificate in PEM', certificates) ?? null);
    const key = this.#key?.read('private key in PEM', privateKey) ?? null;
    if (certificate && key && !new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key))) {
      throw new SidecarError(`${this.#key!.name} ${this.#key!.path} is not the key of ${this.#certificate!.name} ${this.#certificate!.path}`);
    }
    return credentials.createSsl(ca, key, certificate);
  }
}

class Token {
  readonly #file: NamedFile;
  #known: string;
  #seen = '';

  constructor(file: NamedFile) {
    this.#file = file;
    this.#known = file.read('token', token);
  }

  /** It stays what it was while the file cannot be read, or has none. */
  now(): string {
    try {
      const { ino, size, mtimeNs, ctimeNs } = statSync(this.#file.path, { bigint: true });
      const seen = [ino, size, mtimeNs, ctimeNs].join();
      if (seen !== this.#seen) {
        this.#known = this.#file.read('token', token);
        this.#seen = seen;
      }
    } catch {
      // The next call looks again.
    }
    return this.#known;
  }
}

/** A file, and the option or the variable that names it. */
class NamedFile {
  constructor(readonly name: string, readonly path: string) {}

  /** What `parse` finds in it. */
  read<Found>(what: string, parse: (content: string) => Found | undefined): Found {
    let content;
    try {
      content = readFileSync(this.path, 'utf8');
    } catch (error) {
      throw new SidecarError(`${this.name} ${this.path} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
    }
    const found = parse(content);
    if (found === undefined) throw new SidecarError(`${this.name} ${this.path} has no ${what}`);
    return found;
  }
}

function fileOf(options: ConnectionOptions, option: keyof typeof VARIABLES): NamedFile | undefined {
  const given = options[option];
  const path = given || process.env[VARIABLES[option]];
  return path ? new NamedFile(given ? option : VARIABLES[option], path) : undefined;
}

/** Of what is none gRPC would say nothing, and trust nobody. */
function certificates(pem: string): Buffer | undefined {
  const blocks = pem.match(/-----BEGIN ([A-Z0-9 ]*CERTIFICATE)-----[^]+?-----END \1-----/g);
  return blocks ? ifGood(pem, () => blocks.forEach((block) => new X509Certificate(block))) : undefined;
}

const privateKey = (pem: string) => ifGood(pem, () => createPrivateKey(pem));

function ifGood(pem: string, parse: () => unknown): Buffer | undefined {
  try {
    parse();
    return Buffer.from(pem);
  } catch {
    return undefined;
  }
}

/** What no header can hold is none: gRPC's own error would show it. */
const token = (text: string) => text.split('\n').map((line) => line.trim()).find(Boolean)?.match(/^[\x20-\x7e]+$/)?.[0];
