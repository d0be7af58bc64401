// What the page needs of GET v1/schema.

/**
 * Takes the schema apart.
 *
 * Returns {model, version, about, tasks}: a task is {name, path, columns, examples, …} of
 * something the server can do, the main one first; "embed" is one a tower.
 */
export function readSchema(schema) {
  const tasks = schema.capabilities.flatMap((name) => {
    const path = `v1/${name}`;
    if (name !== "embed") return [{ name, path, ...taskOf(schema[name]) }];
    return Object.entries(schema.embed).map(
      ([tower, signature]) => ({ name, path, tower, ...taskOf(signature) }),
    );
  });
  return {
    model: schema.model,
    version: schema.version,
    about: `version ${schema.version}`,
    tasks,
  };
}

function taskOf(signature) {
  return {
    columns: signature.inputs,
    examples: signature.examples ?? (signature.example ? [signature.example] : []),
    canExclude: signature.can_exclude === true,
    idType: signature.item_id_type ?? "",
  };
}
