/**
 * Structures of the documents, declared once as ordered tables.
 *
 * Offsets follow from the order; the total is checked against the size the document gives, when the module loads.
 */

/** A field type: its size in bytes, and how it is read and written through a DataView (little-endian on the wire). */
export interface FieldType<T extends number | bigint = number | bigint> {
  readonly name: string;
  readonly bytes: number;
  read(view: DataView, offset: number): T;
  write(view: DataView, offset: number, value: T): void;
}

export const u8: FieldType<number> = {
  name: 'u8',
  bytes: 1,
  read: (view, offset) => view.getUint8(offset),
  write: (view, offset, value) => view.setUint8(offset, value),
};
export const le16: FieldType<number> = {
  name: 'le16',
  bytes: 2,
  read: (view, offset) => view.getUint16(offset, true),
  write: (view, offset, value) => view.setUint16(offset, value, true),
};
export const le32: FieldType<number> = {
  name: 'le32',
  bytes: 4,
  read: (view, offset) => view.getUint32(offset, true),
  write: (view, offset, value) => view.setUint32(offset, value, true),
};
export const le64: FieldType<bigint> = {
  name: 'le64',
  bytes: 8,
  read: (view, offset) => view.getBigUint64(offset, true),
  write: (view, offset, value) => view.setBigUint64(offset, value, true),
};

/** A run of bytes that is not a number: padding, a MAC address, an array. */
export interface BytesType {
  readonly name: 'bytes';
  readonly bytes: number;
}
export const bytes = (count: number): BytesType => ({ name: 'bytes', bytes: count });

/** Who may do what with a register: read only, read and write, write only. */
export type Access = 'ro' | 'rw' | 'wo';

/** A field with an access, for register blocks. */
export interface Register<T extends FieldType = FieldType> {
  readonly type: T;
  readonly access: Access;
}
export const ro = <T extends FieldType>(type: T): Register<T> => ({ type, access: 'ro' });
export const rw = <T extends FieldType>(type: T): Register<T> => ({ type, access: 'rw' });
export const wo = <T extends FieldType>(type: T): Register<T> => ({ type, access: 'wo' });

type FieldSpec =
  | FieldType<number>
  | FieldType<bigint>
  | BytesType
  | Register<FieldType<number>>
  | Register<FieldType<bigint>>;
type TypeOf<F> = F extends Register<infer T> ? T : F;

/** A field in its place. */
export interface Field<T = FieldType | BytesType> {
  readonly name: string;
  readonly offset: number;
  readonly bytes: number;
  readonly type: T;
  readonly access: Access;
}

/** The values of a layout's number fields, by name. */
export type Values<F extends Record<string, FieldSpec>> = {
  -readonly [K in keyof F as TypeOf<F[K]> extends BytesType ? never : K]: TypeOf<F[K]> extends FieldType<infer V>
    ? V
    : never;
};

export interface Layout<F extends Record<string, FieldSpec> = Record<string, FieldSpec>> {
  readonly name: string;
  readonly bytes: number;
  readonly fields: { readonly [K in keyof F]: Field<TypeOf<F[K]>> };
  /** The fields in order. */
  readonly order: readonly Field[];
  /** Reads every number field of the structure at `offset`. */
  read(view: DataView, offset?: number): Values<F>;
  /** Writes the given number fields of the structure at `offset`; the others stay. */
  write(view: DataView, values: Partial<Values<F>>, offset?: number): void;
}

/**
 * Declares a structure: its name in the document, its size there, its fields in order.
 *
 * @throws Error when the fields do not add up to `size`: a typing error in a table is found at load.
 */
export function layout<const F extends Record<string, FieldSpec>>(name: string, size: number, fields: F): Layout<F> {
  const order: Field[] = [];
  let offset = 0;
  for (const [field, spec] of Object.entries(fields)) {
    const { type, access } = 'access' in spec ? spec : { type: spec, access: 'rw' as const };
    order.push({ name: field, offset, bytes: type.bytes, type, access });
    offset += type.bytes;
  }
  if (offset !== size) throw new Error(`layout ${name}: the fields take ${offset} bytes, the document says ${size}`);
  const numbers = order.filter((field): field is Field<FieldType> => 'read' in field.type);
  return {
    name,
    bytes: size,
    fields: Object.fromEntries(order.map((field) => [field.name, field])) as unknown as Layout<F>['fields'],
    order,
    read: (view, at = 0) =>
      Object.fromEntries(numbers.map((field) => [field.name, field.type.read(view, at + field.offset)])) as Values<F>,
    write: (view, values, at = 0) => {
      for (const field of numbers) {
        const value = (values as Record<string, number | bigint | undefined>)[field.name];
        if (value !== undefined) field.type.write(view, at + field.offset, value);
      }
    },
  };
}
