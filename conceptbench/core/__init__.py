"""The part of ConceptBench without torch: schemas, registry, errors, results, statistics, atomic files."""
