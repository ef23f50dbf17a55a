// What every client here is told of the running network: addresses from the environment, accounts from the mnemonic.
import { createHmac } from "node:crypto";
import { HDNodeWallet, Mnemonic } from "ethers";

export const MNEMONIC = "test test test test test test test test test test test junk";
export const url = process.env.PSEPHOS_RPC_URL ?? "http://127.0.0.1:8001";
export const wsUrl = url.replace("http", "ws");
export const operatorsUrl = process.env.PSEPHOS_OPERATORS_URL;
export const jwtSecret = process.env.PSEPHOS_JWT_SECRET?.replace(/^0x/, "");

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token for the operators' listener, as engine/authentication.md of the execution API describes it. */
export function token(issued = Math.floor(Date.now() / 1000)) {
  const text = `${encoded({ alg: "HS256", typ: "JWT" })}.${encoded({ iat: issued })}`;
  return `${text}.${createHmac("sha256", Buffer.from(jwtSecret, "hex")).update(text).digest("base64url")}`;
}

const root = HDNodeWallet.fromMnemonic(Mnemonic.fromPhrase(MNEMONIC), "m/44'/60'/0'/0");

/** The address and private key of one of the accounts that a development network funds. */
export const account = (index) => root.deriveChild(index);

let lastId = 0;

/** One JSON-RPC call over plain HTTP; the whole answer. What is for operators is asked where they ask it. */
export async function ask(method, params = [], to = url) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: ++lastId, method, params });
  const isOperators = to === url && /^(admin|debug|txpool)_/.test(method);
  return isOperators ? send(body, operatorsUrl, { authorization: `Bearer ${token()}` }) : send(body, to);
}

/** A body as it is. */
export async function send(body, to = url, headers = {}) {
  const answer = await fetch(to, { method: "POST", body, headers: { "content-type": "application/json", ...headers } });
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

/** The result of one JSON-RPC call. */
export async function call(method, ...params) {
  const answer = await ask(method, params);
  if (answer.error) throw new Error(`${method}: ${JSON.stringify(answer.error)}`);
  return answer.result;
}

export const contracts = await call("poa_getContracts");

/** Numbers for elections and nullifiers that no other run on the same chain has used. */
export const fresh = () => BigInt(Date.now()) * 1000n + BigInt(Math.floor(Math.random() * 1000));

/** 32 bytes of hex that hold a number. */
export const word = (number) => "0x" + BigInt(number).toString(16).padStart(64, "0");

/** Wait until `condition` holds; it is asked again and again, and not for ever. */
export async function until(condition, what, withinMs = 60_000) {
  const deadline = Date.now() + withinMs;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
