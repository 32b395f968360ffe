// Diagrams keep their natural size instead of being shrunk until nobody can read them; site.css lets them scroll.
const { initialize } = mermaid;
mermaid.initialize = (options) => {
  const natural = { useMaxWidth: false };
  initialize.call(mermaid, {
    ...options,
    flowchart: natural,
    sequence: { ...options.sequence, ...natural },
    state: natural,
  });
};
