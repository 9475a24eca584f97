// Making and checking IPNS records.
//
//   {"do": "sign", "seed": base64 of 32 bytes, "value", "sequence", "eol": RFC 3339, "ttl_ns", "v1"} → {"record"}
//   {"do": "validate", "name", "records": [base64]}
//   → {"verdicts": [{"ok", "error", "value", "sequence", "ttl_ns", "eol"}]}
//   {"do": "select", "records": [base64]} → {"chosen": index of the best}
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { createIPNSRecordWithExpiration, marshalIPNSRecord, multihashToIPNSRoutingKey, unmarshalIPNSRecord } from 'ipns'
import { ipnsSelector } from 'ipns/selector'
import { ipnsValidator } from 'ipns/validator'
import { base36 } from 'multiformats/bases/base36'
import { CID } from 'multiformats/cid'

export async function signRecord ({ seed, value, sequence, eol, ttl_ns: ttlNs, v1 }) {
  const key = await generateKeyPairFromSeed('Ed25519', Buffer.from(seed, 'base64'))
  const options = { ttlNs: BigInt(ttlNs), v1Compatible: v1 }
  const record = await createIPNSRecordWithExpiration(key, value, BigInt(sequence), eol, options)
  return { record: Buffer.from(marshalIPNSRecord(record)).toString('base64') }
}

export async function validateRecords ({ name, records }) {
  const routingKey = multihashToIPNSRoutingKey(CID.parse(name, base36).multihash)
  const verdicts = []
  for (const input of records) {
    try {
      const raw = Buffer.from(input, 'base64')
      await ipnsValidator(routingKey, raw)
      const { value, sequence, ttl, validity } = unmarshalIPNSRecord(raw)
      verdicts.push({ ok: true, value, sequence: Number(sequence), ttl_ns: Number(ttl), eol: validity })
    } catch (error) {
      verdicts.push({ ok: false, error: `${error.name}: ${error.message}` })
    }
  }
  return { verdicts }
}

export async function chooseRecord ({ records }) {
  return { chosen: ipnsSelector(new Uint8Array(), records.map(input => Buffer.from(input, 'base64'))) }
}
